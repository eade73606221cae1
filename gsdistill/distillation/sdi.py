"""SDI: Score Distillation via Inversion (arXiv 2405.15891, eq. 11, and its program in threestudio).

    x_t: stochastic DDIM inversion of x0 with guidance omega_inv;   kappa = (x_t - alpha_t x0) / sigma_t
    g = w(t) (eps_cfg(x_t, t) - kappa),   w = sigma / alpha, so that g = x0 - (x_t - sigma_t eps_cfg) / alpha_t

t falls linearly from 0.98 to 0.25, one for all views. The inversion goes through multiples of T / steps below t to
min(t + U{0 .. T / steps - 1}, T - 1); as in the program, what it finds there is used at t. A step from a to b adds
noise of deviation eta sqrt((sigma_a / sigma_b)^2 (1 - (alpha_b / alpha_a)^2)). The first step starts from clean latents
(the program takes one more, from -99 to 1). The released config has Perp-Neg, on whose path the program's guidance is
ours; on its other path s is omega = s + 1.
A step costs 2 (ceil(t steps / T) + 1) network evaluations a view, one call after the other: 8 to 22 with
the released settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Guidance
from gsdistill.distillation.base import Distillation, Moment, State, Weighting
from gsdistill.settings.ramp import Ramp

__all__ = ["SDI"]


@dataclass(frozen=True)
class SDI(Distillation):
    """The released settings."""

    # omega at t
    guidance_scale: Ramp = bounded(Ramp(7.5, 7.5), low=0)
    # omega_inv
    inversion_guidance_scale: float = bounded(-7.5)
    # steps of an inversion through the whole schedule
    inversion_steps: int = bounded(10, low=1)
    # eta: share of DDPM's noise that the inversion adds
    inversion_eta: float = bounded(0.3, low=0, high=1)
    # t as a fraction of the prior's schedule, one for all views
    timestep: Ramp = bounded(Ramp(0.98, 0.25), above=0, high=1)
    # w(t)
    weighting: Weighting = "snr"

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One SDI gradient, see the module."""
        top = max(moment.schedule.index(self.timestep(moment.progress)), 1)
        x_t, t = self._invert(moment, top), moment.same_timestep(top)
        alpha, sigma = moment.schedule.at(t, x_t)
        kappa = (x_t - alpha * moment.x0) / sigma
        guided = moment.prior.noise(x_t, t, moment.condition).guided(self.guidance_scale(moment.progress))
        return moment.answer(moment.weight(self.weighting, t) * (guided - kappa), t), state

    def _invert(self, moment: Moment, top: int) -> Float[Tensor, "B C h w"]:
        """x0 carried up to noise level ``top`` or a little above; the first step starts from clean latents."""
        schedule, generator = moment.schedule, moment.generator
        stride = max(len(schedule) // self.inversion_steps, 1)
        above = int(torch.randint(0, stride, (1,), generator=generator, device=generator.device))
        times = [*range(0, top, stride), min(top + above, len(schedule) - 1)]
        x = moment.x0
        for now, later in pairwise(times):
            at, to = moment.same_timestep(now), moment.same_timestep(later)
            eps = moment.prior.noise(x, at, moment.condition).guided(self.inversion_guidance_scale)
            x = schedule.ddim_step(x, eps, at, to) if now else schedule.add_noise(x, eps, to)
            if now and self.inversion_eta > 0:
                (alpha, sigma), (alpha_to, sigma_to) = schedule.at(at, x), schedule.at(to, x)
                added = sigma / sigma_to * (1 - (alpha_to / alpha).square()).clamp_min(0).sqrt()
                x = x + self.inversion_eta * added * moment.draw_noise()
        return x
