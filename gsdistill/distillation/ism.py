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

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Guidance
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

    def __post_init__(self) -> None:
        check_times(self.t_min, self.t_max)

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One ISM gradient, see the module."""
        index = moment.schedule.index
        top = self._top(moment)
        t = moment.same_timestep(top)
        s = max(top - index(self.interval(moment.progress)), 0)
        x_t, eps_s = self._invert(moment, [*range(0, s, max(index(self.stride), 1)), s, top])
        guided = moment.prior.noise(x_t, t, moment.condition).guided(self.guidance_scale(moment.progress))
        return moment.answer(moment.weight(self.weighting, t) * (guided - eps_s), t), state

    def _top(self, moment: Moment) -> int:
        """t, drawn as for views with one each and kept by the program: the number of network calls depends on it."""
        generator, count = moment.generator, len(moment.views) // moment.prior.view_group
        first, last = (moment.schedule.index(end(moment.progress)) for end in (self.t_min, self.t_max))
        low = min(first, last)
        return int(torch.randint(low, last + 1, (count,), generator=generator, device=generator.device)[0])

    def _invert(self, moment: Moment, times: list[int]) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
        """Carry x0 up through ``times``; returns it at the last one, and the noise seen at the last but one."""
        eps = moment.draw_noise()
        x = moment.schedule.add_noise(moment.x0, eps, moment.same_timestep(0))
        for now, later in pairwise(times):
            at, to = moment.same_timestep(now), moment.same_timestep(later)
            (eps,) = moment.prior.predict_noise([Query(x, at, "negative")], moment.condition)
            x = moment.schedule.ddim_step(x, eps, at, to)
        return x, eps
