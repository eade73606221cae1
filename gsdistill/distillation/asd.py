"""ASD: Asynchronous Score Distillation (ScaleDreamer, arXiv 2407.02040, and its released configurations).

    g = w(t) (eps_cfg(x_t, t) - eps_c(x_{t+d}, t + d)),   the same eps in x_t and x_{t+d}
    d = min(eta (t - t_min T), T - 1 - t) U, truncated,   U ~ U(0, 1) per sample (``random_shift``) or 1

At a noisier timestep the network's error is smaller, so the second term, conditional and without guidance, stands in
for VSD's tuned network. The range of t falls over the run: t_min from 0.5 to 0.02, t_max from 0.98 to 0.5.
A step costs three network evaluations a view (and one for each Perp-Neg branch) in one call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Guidance
from gsdistill.distillation.base import Distillation, Moment, State, Weighting, check_times
from gsdistill.prior.base import Query, combine
from gsdistill.settings.ramp import Ramp

__all__ = ["ASD"]


@dataclass(frozen=True)
class ASD(Distillation):
    """The released settings."""

    # omega of the first term
    guidance_scale: Ramp = bounded(Ramp(7.5, 7.5), low=0)
    # eta: how far t + d is from t, as a share of t - t_min
    eta: float = bounded(0.1, low=0, high=1)
    # draw the shift uniformly between 0 and that
    random_shift: bool = True
    # lowest timestep, as a fraction of the prior's schedule
    t_min: Ramp = bounded(Ramp(0.5, 0.02), low=0, high=1)
    # highest timestep, as a fraction of the prior's schedule
    t_max: Ramp = bounded(Ramp(0.98, 0.5), low=0, high=1)
    # factor of the Perp-Neg weights, where a condition has them
    perp_neg: float = bounded(0.5, low=0)
    # w(t)
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        check_times(self.t_min, self.t_max)

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One ASD gradient, see the module."""
        x0, schedule, condition = moment.x0, moment.schedule, moment.condition
        t = moment.draw_timesteps(self.t_min, self.t_max)
        later = t + self._shift(moment, t)
        eps = moment.draw_noise()
        names, x_t = condition.guiding, schedule.add_noise(x0, eps, t)
        queries = [Query(x_t, t, name) for name in names]
        queries.append(Query(schedule.add_noise(x0, eps, later), later, "positive"))
        *answers, reference = moment.prior.predict_noise(queries, condition)
        scaled = replace(condition, perp_weights=self.perp_neg * condition.perp_weights)
        noise = combine(dict(zip(names, answers, strict=True)), scaled, moment.prior.rescale(x_t, t))
        g = moment.weight(self.weighting, t) * (noise.guided(self.guidance_scale(moment.progress)) - reference)
        return moment.answer(g, t, {"shift": (later - t).float().mean()}), state

    def _shift(self, moment: Moment, t: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """Return d, clipped before it is multiplied by U; clipped afterwards, t + d would often be T - 1 itself."""
        lowest = moment.schedule.index(self.t_min(moment.progress))
        share = moment.draw_shares() if self.random_shift else 1.0
        return (torch.minimum(self.eta * (t - lowest), len(moment.schedule) - 1 - t) * share).long()
