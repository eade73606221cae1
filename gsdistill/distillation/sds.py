"""SDS: Score Distillation Sampling (DreamFusion, arXiv 2209.14988, eq. 3).

    g = w(t) (eps_cfg(x_t) - eps),   t ~ U(t_min T, t_max T),  eps fresh at every step

``variance_reduction: adaptive`` subtracts r eps instead, r = <eps_c, eps> / <eps, eps> per sample, the multiple of eps
that is nearest to eps_c (SSD, arXiv 2312.09305, eq. 8 and Sec. 10).
omega is 100 by default, as stable-dreamfusion and DreamGaussian define and set it. DreamFusion itself and threestudio
compute eps_c + s h with s = 100, for DeepFloyd IF 20: their configs here have omega = s + 1.
``shared_timestep``: MVDream's program (arXiv 2308.16512) draws one t for all views of a step, whatever their groups.
``timesteps``: ``linear-anneal`` takes one t for all views, falling from t_max to t_min; ``dreamtime`` one t that stays
where W(t) = s_t f(t) is large, f = 1 on [0.5 T, 0.8 T] with Gaussian flanks of 0.1 T below and 0.3 T above (DreamTime,
arXiv 2306.12422, eq. 5 and 6: sum of W over t' >= t equals progress, of the whole sum).
A step costs two network evaluations a view (conditional and unconditional) in one call.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Guidance
from gsdistill.distillation.base import Distillation, Moment, State, Weighting, check_times, dot
from gsdistill.prior.schedule import NoiseSchedule
from gsdistill.settings.ramp import Ramp

__all__ = ["SDS", "projection"]


@dataclass(frozen=True)
class SDS(Distillation):
    """The published settings for latent priors; shipped configs hold those for other priors."""

    # omega in eps_u + omega (eps_c - eps_u), 1 means no guidance; 100 suits latent priors, 21 DeepFloyd IF
    guidance_scale: Ramp = bounded(Ramp(100.0, 100.0), low=0)
    # lowest timestep, as a fraction of the prior's schedule
    t_min: Ramp = bounded(Ramp(0.02, 0.02), low=0, high=1)
    # highest timestep, as a fraction of the prior's schedule
    t_max: Ramp = bounded(Ramp(0.98, 0.98), low=0, high=1)
    # how t goes through that range
    timesteps: Literal["random", "linear-anneal", "dreamtime"] = "random"
    # draw one random t for all views of a step, not one for each view (or each group that the prior sees together)
    shared_timestep: bool = False
    # the multiple of eps that is subtracted: 1, or the projection of eps_c on eps
    variance_reduction: Literal["none", "adaptive"] = "none"
    # w(t)
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        check_times(self.t_min, self.t_max)

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One SDS gradient, see the module."""
        t, eps = self._timesteps(moment), moment.draw_noise()
        noise = moment.prior.noise(moment.schedule.add_noise(moment.x0, eps, t), t, moment.condition)
        kept = projection(noise.conditional, eps) if self.variance_reduction == "adaptive" else 1.0
        g = noise.guided(self.guidance_scale(moment.progress)) - kept * eps
        return moment.answer(moment.weight(self.weighting, t) * g, t), state

    def _timesteps(self, moment: Moment) -> Int[Tensor, "B"]:
        if self.timesteps == "random":
            return moment.draw_timesteps(self.t_min, self.t_max, self.shared_timestep)
        schedule, progress = moment.schedule, moment.progress
        low, high = self.t_min(progress), self.t_max(progress)
        if self.timesteps == "linear-anneal":
            return moment.same_timestep(schedule.index(high + (low - high) * progress))
        return moment.same_timestep(dreamtime(progress, schedule.index(low), schedule.index(high), schedule))


def projection(eps_c: Float[Tensor, "B C h w"], eps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 1 1 1"]:
    """The r that minimises |eps_c - r eps|, <eps_c, eps> / <eps, eps> per sample (SSD, eq. 8)."""
    return dot(eps_c, eps) / dot(eps, eps)


@lru_cache(maxsize=4)
def _ratios(schedule: NoiseSchedule) -> Float[Tensor, "T"]:
    """s_t, on the CPU, fetched once."""
    return (schedule.sigmas / schedule.alphas).cpu()


def dreamtime(progress: float, low: int, high: int, schedule: NoiseSchedule) -> int:
    """DreamTime's timestep in [low, high] at ``progress``; its published m and s are thousandths of the schedule."""
    t = torch.arange(low, high + 1, dtype=torch.float64)
    share = t / len(schedule)
    away = torch.where(share > 0.8, (share - 0.8) / 0.3, torch.where(share < 0.5, (share - 0.5) / 0.1, 0.0))
    mass = (_ratios(schedule)[low : high + 1] * torch.exp(-0.5 * away.square())).flip(0).cumsum(0)
    return high - int((mass / mass[-1] - progress).abs().argmin())
