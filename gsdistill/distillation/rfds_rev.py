"""RFDS-Rev: RFDS with a noise that is corrected first (arXiv 2406.03293), as released for Stable Diffusion 3.

    eps' = eps + k (u_c(x_t) + x0 - eps) = eps + k (eps_c(x_t) - eps) / alpha_t,   x_t  = alpha_t x0 + sigma_t eps
    g = u_cfg(x'_t) - (eps' - x0)        = (eps_cfg(x'_t) - eps') / alpha_t,       x'_t = alpha_t x0 + sigma_t eps'

u = eps - x0 is the velocity of rectified flow, and t ~ U(t_min T, t_max T). The correction asks for the prompt alone,
without guidance. It is one step towards the noise from which the network would make x0. ``correction: scaled`` has
k = alpha_t, which is 1 - sigma_t on rectified flow: then eps' = eps_c(x_t) on every prior. ``whole`` has k = 1, as in
the program for 2-rectified flow. See rfds.py for t, the scale of the loss and variance-preserving priors. The program
draws the random factor of RFDS here too, and does not use it.
A step costs three network evaluations a view (and one for each Perp-Neg branch) in two calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Guidance
from gsdistill.distillation.base import Distillation, Moment, State, check_times
from gsdistill.prior.base import Query
from gsdistill.settings.ramp import Ramp

__all__ = ["RFDSRev"]


@dataclass(frozen=True)
class RFDSRev(Distillation):
    """The released settings for Stable Diffusion 3; those for 2-rectified flow are 50, 0.02, 0.98 and later 0.7."""

    # omega in eps_u + omega (eps_c - eps_u); the correction has none
    guidance_scale: Ramp = bounded(Ramp(100.0, 100.0), low=0)
    # lowest timestep, as a fraction of the prior's schedule
    t_min: Ramp = bounded(Ramp(0.019, 0.019), low=0, high=1)
    # highest timestep, as a fraction of the prior's schedule
    t_max: Ramp = bounded(Ramp(0.699, 0.699), low=0, high=1)
    # k of the correction: alpha_t, or 1
    correction: Literal["scaled", "whole"] = "scaled"

    def __post_init__(self) -> None:
        check_times(self.t_min, self.t_max)

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One RFDS-Rev gradient, see the module."""
        prior, add_noise, condition = moment.prior, moment.schedule.add_noise, moment.condition
        t, eps = moment.draw_timesteps(self.t_min, self.t_max), moment.draw_noise()
        scale = moment.weight("flow", t)
        (found,) = prior.predict_noise([Query(add_noise(moment.x0, eps, t), t, "positive")], condition)
        eps = found if self.correction == "scaled" else eps + scale * (found - eps)
        noise = prior.noise(add_noise(moment.x0, eps, t), t, condition)
        return moment.answer(scale * (noise.guided(self.guidance_scale(moment.progress)) - eps), t), state
