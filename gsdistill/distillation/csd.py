"""CSD: Classifier Score Distillation (arXiv 2310.19415, eq. 6).

    g = w(t) omega h,   h = eps_c - eps_u,   t ~ U(t_min T, t_max T)

The guidance direction alone: neither the mode-seeking term eps_c nor the noise of SDS. It is SSD with M = 0.
A step costs two network evaluations a view in one call.
"""

from __future__ import annotations

from dataclasses import dataclass

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Guidance
from gsdistill.distillation.base import Distillation, Moment, State, Weighting, check_times
from gsdistill.settings.ramp import Ramp

__all__ = ["CSD"]


@dataclass(frozen=True)
class CSD(Distillation):
    """SSD's settings with M = 0; the released configs take weight 1, a negative prompt, and t up to 0.98, later 0.5."""

    # omega, a plain factor here; Adam does not feel it, penalties are weighed against it
    guidance_scale: Ramp = bounded(Ramp(7.5, 7.5), low=0)
    # lowest timestep, as a fraction of the prior's schedule
    t_min: Ramp = bounded(Ramp(0.02, 0.02), low=0, high=1)
    # highest timestep, as a fraction of the prior's schedule
    t_max: Ramp = bounded(Ramp(0.98, 0.98), low=0, high=1)
    # w(t)
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        check_times(self.t_min, self.t_max)

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One CSD gradient, see the module."""
        t = moment.draw_timesteps(self.t_min, self.t_max)
        x_t = moment.schedule.add_noise(moment.x0, moment.draw_noise(), t)
        h = moment.prior.noise(x_t, t, moment.condition).direction
        return moment.answer(moment.weight(self.weighting, t) * self.guidance_scale(moment.progress) * h, t), state
