"""SDI: Score Distillation via Inversion (arXiv 2405.15891, eq. 11, and its program in threestudio).

    x_t: stochastic DDIM inversion of x0 with guidance omega_inv;   kappa = (x_t - alpha_t x0) / sigma_t
    g = w(t) (eps_cfg(x_t, t) - kappa),   w = sigma / alpha, so that g = x0 - (x_t - sigma_t eps_cfg) / alpha_t

t falls linearly from 0.98 to 0.25, one for all views. The inversion goes from x0 at time 0 through 1, 1 + T / steps,
1 + 2 T / steps, .. below t to min(t + U{0 .. T / steps - 1}, T - 1). A step from a to b, the first one too, is DDIM's
with noise of deviation eta sqrt((sigma_a / sigma_b)^2 (1 - (alpha_b / alpha_a)^2)) added.
As in the program, what is found at the last time is used at t as it is; ``remap`` takes its noise out there and puts
it in at t instead, which makes kappa the very noise in x_t.
The program calls its first time 1 - T / steps = -99, with alpha and sigma of time 0, and asks the network at -99. Here
it is asked at 0: no prior was trained on negative times, and there is no alpha by which to turn a prediction of v or of
a flow into noise. That one question is the only difference; on the shapes prior it turns g by 11 degrees.
The released config has Perp-Neg, on whose path the program's guidance is ours; on its other path s is omega = s + 1.
Its loss is a mean over the elements, so that its penalties weigh more beside it than the same numbers here.
A step costs 2 (ceil((t - 1) steps / T) + 2) network evaluations a view, one call after the other: 10 to 24 with
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
    # move the noise that the inversion finds at its last time to t
    remap: bool = False

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One SDI gradient, see the module."""
        schedule, top = moment.schedule, max(moment.schedule.index(self.timestep(moment.progress)), 1)
        times, t = self._times(moment, top), moment.same_timestep(top)
        x_t = self._invert(moment, times)
        alpha, sigma = schedule.at(moment.same_timestep(times[-1]) if self.remap else t, x_t)
        kappa = (x_t - alpha * moment.x0) / sigma
        if self.remap:
            x_t = schedule.add_noise(moment.x0, kappa, t)
        guided = moment.prior.noise(x_t, t, moment.condition).guided(self.guidance_scale(moment.progress))
        return moment.answer(moment.weight(self.weighting, t) * (guided - kappa), t), state

    def _times(self, moment: Moment, top: int) -> list[int]:
        """0, 1, 1 + stride, .. below ``top``, and ``top`` or a little above."""
        length, generator = len(moment.schedule), moment.generator
        stride = max(length // self.inversion_steps, 1)
        above = int(torch.randint(0, stride, (1,), generator=generator, device=generator.device))
        return [0, *range(1, top, stride)[: self.inversion_steps], min(top + above, length - 1)]

    def _invert(self, moment: Moment, times: list[int]) -> Float[Tensor, "B C h w"]:
        """x0 carried up through the noise levels of ``times``."""
        schedule, x = moment.schedule, moment.x0
        for now, later in pairwise(times):
            at, to = moment.same_timestep(now), moment.same_timestep(later)
            eps = moment.prior.noise(x, at, moment.condition).guided(self.inversion_guidance_scale)
            x = schedule.ddim_step(x, eps, at, to)
            if self.inversion_eta > 0:
                (alpha, sigma), (alpha_to, sigma_to) = schedule.at(at, x), schedule.at(to, x)
                added = sigma / sigma_to * (1 - (alpha_to / alpha).square()).clamp_min(0).sqrt()
                x = x + self.inversion_eta * added * moment.draw_noise()
        return x
