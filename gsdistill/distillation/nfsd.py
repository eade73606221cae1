"""NFSD: Noise-Free Score Distillation (arXiv 2310.17590).

    g = w(t) (omega h + d),   h = eps_c - eps_empty,   t ~ U(t_min T, t_max T)
    d = eps_empty where t < 0.2 T,   else eps_empty - eps_negative

eps_empty has a part that leads to real pictures, and the noise that is in x_t. Where there is little noise, d is all of
it. Elsewhere the second text takes the noise away, and what is left leads from bad pictures to others: so the method
needs a negative prompt, and configs/nfsd-paper.yaml has the paper's. Without one, d is 0 there, and g that of CSD.
With Perp-Neg h is its aggregate about eps_empty; the program of SDS-Bridge, after which the rule of d is written, has
no Perp-Neg, and one t for a batch of one.
A step costs three network evaluations a view in one call.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Guidance
from gsdistill.distillation.base import Distillation, Moment, State, Weighting, check_times
from gsdistill.prior.base import Query, combine
from gsdistill.settings.ramp import Ramp

__all__ = ["NFSD"]


@dataclass(frozen=True)
class NFSD(Distillation):
    """The published settings; times are fractions of the prior's schedule."""

    # omega, the nominal one of sampling
    guidance_scale: Ramp = bounded(Ramp(7.5, 7.5), low=0)
    # lowest timestep
    t_min: Ramp = bounded(Ramp(0.02, 0.02), low=0, high=1)
    # highest timestep
    t_max: Ramp = bounded(Ramp(0.98, 0.98), low=0, high=1)
    # below this timestep d is eps_empty
    low_noise: Ramp = bounded(Ramp(0.2, 0.2), low=0, high=1)
    # w(t)
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        check_times(self.t_min, self.t_max)

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One NFSD gradient, see the module."""
        condition, t = moment.condition, moment.draw_timesteps(self.t_min, self.t_max)
        x_t = moment.schedule.add_noise(moment.x0, moment.draw_noise(), t)
        names = [*condition.guiding, "empty"]
        answers = moment.prior.predict_noise([Query(x_t, t, name) for name in names], condition)
        eps = dict(zip(names, answers, strict=True))
        low = (t < moment.schedule.index(self.low_noise(moment.progress))).to(x_t.device)[:, None, None, None]
        d = torch.where(low, eps["empty"], eps["empty"] - eps["negative"])
        h = combine({**eps, "negative": eps["empty"]}, condition).direction
        g = moment.weight(self.weighting, t) * (self.guidance_scale(moment.progress) * h + d)
        return moment.answer(g, t, {"low_noise": low.float().mean()}), state
