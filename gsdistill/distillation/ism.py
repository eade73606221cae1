"""ISM: Interval Score Matching (LucidDreamer, arXiv 2311.11284, and its released program).

    x_s: DDIM inversion of x0 by steps of ``stride`` with the empty prompt;  x_t: one more such step, t = s + interval
    g = w(t) (eps_cfg(x_t, t) - eps_u(x_s, s)),   w = sigma / alpha

One t for all views, t ~ U(t_min T, t_max T), where t_max falls from 0.98 to 0.5 and the interval from 100 to 80 in the
first 30 % of the run. The inversion begins at timestep 0 with its trace of noise. "Empty prompt" is the negative
branch, as everywhere; a negative prompt of one's own takes part in the inversion too.
A step costs ceil(s / stride) + 1 network evaluations a view for x_s and x_t (one call each), then two in one call:
with the released settings 3 to 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.config import bounded
from gsdistill.distillation.base import (
    Distillation,
    State,
    Weighting,
    check_times,
    draw_noise,
    draw_timesteps,
    weight,
)  # fmt: skip
from gsdistill.prior.base import Prior, Query
from gsdistill.ramp import Ramp
from gsdistill.structs import Condition, Guidance, Views

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

    def __post_init__(self) -> None:
        check_times(self.t_min, self.t_max)

    def init_state(self, prior: Prior, generator: torch.Generator) -> State:
        """ISM remembers nothing."""
        return {}

    def gradient(
        self,
        prior: Prior,
        views: Views,
        condition: Condition,
        progress: float,
        state: State,
        generator: torch.Generator,
    ) -> tuple[Guidance, State]:
        """One ISM gradient, see the module."""
        x0, before, schedule = views.latents, prior.evaluations, prior.schedule
        t = draw_timesteps(self.t_min(progress), self.t_max(progress), 1, schedule, generator).expand(len(x0))
        top = int(t[0])
        s = max(top - schedule.index(self.interval(progress)), 0)
        times = [*range(0, s, max(schedule.index(self.stride), 1)), s, top]
        eps = draw_noise(x0.shape, x0, generator)
        x_t, eps_s = self._invert(prior, schedule.add_noise(x0, eps, torch.zeros_like(t)), times, condition)
        noise = prior.noise(x_t, t, condition)
        g = weight(self.weighting, schedule, t, x0) * (noise.guided(self.guidance_scale(progress)) - eps_s)
        return Guidance(g, prior.evaluations - before, {"timestep": t.float().mean()}), state

    def _invert(
        self, prior: Prior, x: Float[Tensor, "B C h w"], times: list[int], condition: Condition
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
        """Carry x up through ``times``; returns it at the last one, and the noise seen at the last but one."""
        eps = torch.zeros_like(x)
        for now, later in pairwise(times):
            at, to = (torch.full((len(x),), level, device=x.device) for level in (now, later))
            (eps,) = prior.predict_noise([Query(x, at, "negative")], condition)
            x = prior.schedule.ddim_step(x, eps, at, to)
        return x, eps
