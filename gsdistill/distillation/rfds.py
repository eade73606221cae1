"""RFDS: Rectified Flow Distillation Sampling (arXiv 2406.03293), as released for Stable Diffusion 3.

    g = u_cfg(x_t) - (eps - x0) = (eps_cfg(x_t) - eps) / alpha_t,   t ~ U(t_min T, t_max T),  eps fresh at every step

On rectified flow (alpha_t = 1 - sigma_t) the network predicts u = eps - x0, and g is its error: SDS with the weight
``flow``. A variance-preserving prior takes the same formula in the noise. Its eps - x0 from one answer of the network
has an error of (alpha_t + sigma_t) g, 1 to 1.41 times as much.
``random_factor`` multiplies a step's gradient by the mean over the views of sigmoid(z), z ~ N(0, 1), as the program
does on Stable Diffusion 3; it does not on 2-rectified flow. The program draws a place 0.3 T .. 0.98 T in a list of
times that falls from T - 1, so its t are 19 .. 699 of 1000. Its loss is a mean over the numbers of a latent: its
gradient is 2 / (C h w) of g, so that its penalties weigh C h w / 2 times as much beside it.
A step costs two network evaluations a view in one call.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Guidance
from gsdistill.distillation.base import Distillation, Moment, State, check_times
from gsdistill.settings.ramp import Ramp

__all__ = ["RFDS"]


@dataclass(frozen=True)
class RFDS(Distillation):
    """The released settings for Stable Diffusion 3; those for 2-rectified flow are 50, 0.02, 0.98 and later 0.7."""

    # omega in eps_u + omega (eps_c - eps_u)
    guidance_scale: Ramp = bounded(Ramp(100.0, 100.0), low=0)
    # lowest timestep, as a fraction of the prior's schedule
    t_min: Ramp = bounded(Ramp(0.019, 0.019), low=0, high=1)
    # highest timestep, as a fraction of the prior's schedule
    t_max: Ramp = bounded(Ramp(0.699, 0.699), low=0, high=1)
    # multiply each step's gradient by a random number in 0..1, 0.5 in the mean
    random_factor: bool = True

    def __post_init__(self) -> None:
        check_times(self.t_min, self.t_max)

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One RFDS gradient, see the module."""
        t, eps = moment.draw_timesteps(self.t_min, self.t_max), moment.draw_noise()
        noise = moment.prior.noise(moment.schedule.add_noise(moment.x0, eps, t), t, moment.condition)
        g = moment.weight("flow", t) * (noise.guided(self.guidance_scale(moment.progress)) - eps)
        if self.random_factor:
            g = g * torch.special.ndtri(moment.draw_shares()).sigmoid().mean()  # ndtri makes a uniform number normal
        return moment.answer(g, t), state
