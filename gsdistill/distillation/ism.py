"""ISM: Interval Score Matching (LucidDreamer, arXiv 2311.11284, eq. 14 and 17, and its released program).

    x_s: DDIM inversion of x0 by steps of ``stride`` with the empty prompt;  x_t: one more such step, t = s + interval
    g = lambda w(t) (eps_cfg(x_t, t) - e(x_s, s)),   w = sigma / alpha,   e = eps_empty of the inversion at s

One t for all views: i ~ {t_min T, .., t_max T - 1}, t = i + 1, s = max(t - interval, 1), because the program's first
timestep is 1 and its strides go 1, 201, 401, ... t_max falls from 0.98 to 0.5 and the interval from 100 to 80 in the
first 30 % of the run. The start has the noise eps + 0.1 n, n one normal number a channel, the same for all views.
``denoise_guidance_scale`` d > 1 turns guidance around in the inversion: e = eps_empty + d (eps_negative - eps_empty).
Pictures flipped before the encoder (every other step) or of the depth instead of colours (one step in five) belong to
the run: ``pictures`` of the config. With Perp-Neg the program rounds the interval up, else truncates it as here. It
does not divide by the number of views B, as the loss here does: its lambda 0.1 is 0.1 B here.
A step costs ceil((s - 1) / stride) + 1 network evaluations a view for x_s and x_t (one call each; twice as many
evaluations where d > 1), then two in one call: with the released settings 3 to 8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Guidance, send
from gsdistill.distillation.base import Distillation, Moment, State, Weighting, check_times
from gsdistill.prior.base import Query
from gsdistill.settings.ramp import Ramp

__all__ = ["ISM"]


@dataclass(frozen=True)
class ISM(Distillation):
    """The released settings; times are fractions of the prior's schedule."""

    # omega at t
    guidance_scale: Ramp = bounded(Ramp(7.5, 7.5), low=0)
    # t - s
    interval: Ramp = bounded(Ramp(0.1, 0.08, until=0.3), above=0, high=1)
    # longest step of the inversion up to s
    stride: float = bounded(0.2, above=0, high=1)
    # lowest t
    t_min: Ramp = bounded(Ramp(0.02, 0.02), low=0, high=1)
    # highest t
    t_max: Ramp = bounded(Ramp(0.98, 0.5, until=0.3), low=0, high=1)
    # w(t)
    weighting: Weighting = "snr"
    # the text of the inversion: no words, or the negative prompt
    inversion: Literal["empty", "negative"] = "empty"
    # above 1, the inversion follows guidance from the empty to the negative prompt with this scale
    denoise_guidance_scale: float = bounded(1.0, low=0)
    # most steps up to s, where more are needed they begin at a later time; none: no limit
    xs_inv_steps: int | None = bounded(5, low=1)
    # share of DDIM's variance that the steps up to s draw anew
    xs_eta: float = bounded(0.0, low=0)
    # how much of the first noise is one number a channel
    noise_offset: float = bounded(0.1, low=0)
    # factor of g, which Adam does not feel; penalties and clip do
    lambda_guidance: float = bounded(1.0, above=0)

    def __post_init__(self) -> None:
        check_times(self.t_min, self.t_max)
        if self.inversion == "negative" and self.denoise_guidance_scale > 1:
            raise ConfigError("method.denoise_guidance_scale > 1 leads from the empty prompt: set inversion: empty")

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One ISM gradient, see the module."""
        s, t = self._times(moment)
        x_t, eps_s = self._invert(moment, s, t)
        at = moment.same_timestep(t)
        guided = moment.prior.noise(x_t, at, moment.condition).guided(self.guidance_scale(moment.progress))
        g = self.lambda_guidance * moment.weight(self.weighting, at) * (guided - eps_s)
        return moment.answer(g, at), state

    def _times(self, moment: Moment) -> tuple[int, int]:
        """The two times s and t; the program keeps them, because the number of network calls depends on them."""
        index, generator = moment.schedule.index, moment.generator
        low, high = sorted(index(end(moment.progress)) for end in (self.t_min, self.t_max))
        drawn = int(torch.randint(low, max(high, low + 1), (1,), generator=generator, device=generator.device))
        t = min(drawn + 1, len(moment.schedule) - 1)
        return max(t - index(self.interval(moment.progress)), 1), t

    def _invert(self, moment: Moment, s: int, t: int) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
        """x0 carried up through s to t, and the noise seen at s."""
        x0, generator, stride = moment.x0, moment.generator, max(moment.schedule.index(self.stride), 1)
        start = max(s - stride * min(math.ceil((s - 1) / stride), self.xs_inv_steps or s), 1)
        eps = moment.draw_noise()
        if self.noise_offset:
            drawn = torch.randn((1, x0.shape[1], 1, 1), generator=generator, device=generator.device)
            eps = eps + self.noise_offset * send(drawn, x0)
        x = moment.schedule.add_noise(x0, eps, moment.same_timestep(start))
        for now, later in pairwise([*range(start, s, stride), s]):
            x = self._step(moment, x, self._noise(moment, x, now), now, later)
        eps = self._noise(moment, x, s)
        return moment.schedule.ddim_step(x, eps, moment.same_timestep(s), moment.same_timestep(t)), eps

    def _noise(self, moment: Moment, x: Float[Tensor, "B C h w"], now: int) -> Float[Tensor, "B C h w"]:
        """e, the noise that the inversion follows."""
        scale, at = self.denoise_guidance_scale, moment.same_timestep(now)
        names = [self.inversion, "negative"] if scale > 1 else [self.inversion]
        plain, *negative = moment.prior.predict_noise([Query(x, at, name) for name in names], moment.condition)
        return plain + scale * (negative[0] - plain) if negative else plain

    def _step(
        self, moment: Moment, x: Float[Tensor, "B C h w"], eps: Float[Tensor, "B C h w"], now: int, later: int
    ) -> Float[Tensor, "B C h w"]:
        """A DDIM step; the program draws the variance min(sigma'^2 / 2, eta v) anew, where DDIM has eta^2 v."""
        at, to = moment.same_timestep(now), moment.same_timestep(later)
        if not self.xs_eta:
            return moment.schedule.ddim_step(x, eps, at, to)
        (a, s), (b, r) = (moment.schedule.at(when, x) for when in (at, to))
        anew = torch.minimum(r**2 / 2, self.xs_eta * (r**2 / s**2 * (1 - a**2 / b**2)).abs())
        return b * (x - s * eps) / a + (r**2 - anew).sqrt() * eps + anew.sqrt() * moment.draw_noise()
