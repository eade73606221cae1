"""DSD: Diverse Score Distillation (arXiv 2412.06780, and its released program).

    g = w(t) (eps_cfg(alpha_t x0 + sigma_t e, t) - eps_c(alpha_t' x0 + sigma_t' e, t')),   t' = t + d

It is ASD (arXiv 2407.02040) with e, the noise that eps_cfg finds at t' on a DDIM path: from a noise drawn once for the
run, for all views the same, down the times of {T - 1 .. 0} cut in ``path_steps``, as far as they lie above t', to t'.
The seed thus leads the run as it leads a sampler, and other seeds end elsewhere.
d = min(eta (t - t_min T), T - 1 - t) U, truncated, U ~ U(0, 1). t falls as a square root from 0.98 to 0.32. t and U are
the same for all views of a step, since the program has one view.
``reference: guided`` is the program's second term, eps_u + h: it keeps Perp-Neg's terms, and without them it is eps_c.
The released config has Perp-Neg, on whose path the program's guidance is ours. On its other path the program has
eps_c + s h everywhere, omega = s + 1, so that its reference is at omega = 2; that is not here.
A step costs 2 (k + 2) + 1 network evaluations a view, k the times of the path above t': 7 to 19 with the released
settings, in k + 3 calls one after the other. ``reference: guided`` costs one more. ASD costs 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Guidance
from gsdistill.distillation.base import Distillation, Moment, State, Weighting
from gsdistill.prior.base import Prior, Query
from gsdistill.settings.ramp import Ramp

__all__ = ["DSD"]


@dataclass(frozen=True)
class DSD(Distillation):
    """The released settings."""

    # omega of the first term and of the path
    guidance_scale: Ramp = bounded(Ramp(7.5, 7.5), low=0)
    # t as a fraction of the prior's schedule, one for all views
    timestep: Ramp = bounded(Ramp(0.98, 0.32, "sqrt"), low=0, high=1)
    # where t ends in a run, as a fraction of the prior's schedule; eta counts from there
    t_min: float = bounded(0.32, low=0, high=1)
    # eta: how far t' is from t, as a share of t - t_min
    eta: float = bounded(0.1, low=0, high=1)
    # steps of a path through the whole schedule
    path_steps: int = bounded(10, low=1)
    # second term: eps_c, or eps_u + h with Perp-Neg's terms in h
    reference: Literal["conditional", "guided"] = "conditional"
    # w(t)
    weighting: Weighting = "sds"

    def init_state(self, prior: Prior, generator: torch.Generator) -> State:
        """Draw the noise at which every path begins."""
        return {"noise": torch.randn(prior.latent_shape, generator=generator, device=generator.device)}

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One DSD gradient, see the module."""
        prior, schedule, condition = moment.prior, moment.schedule, moment.condition
        now = schedule.index(self.timestep(moment.progress))
        later = now + self._shift(moment, now)
        t, t_later = moment.same_timestep(now), moment.same_timestep(later)
        eps = self._path(moment, state["noise"].to(moment.x0).expand(moment.x0.shape), later)
        x_t, x_later = (schedule.add_noise(moment.x0, eps, time) for time in (t, t_later))
        guided = prior.noise(x_t, t, condition).guided(self.guidance_scale(moment.progress))
        g = moment.weight(self.weighting, t) * (guided - self._reference(moment, x_later, t_later))
        return moment.answer(g, t, {"shift": (t_later - t).float().mean()}), state

    def _shift(self, moment: Moment, t: int) -> int:
        """d, by one U for all views."""
        length, generator = len(moment.schedule), moment.generator
        most = min(max(self.eta * (t - moment.schedule.index(self.t_min)), 0.0), length - 1.0 - t)
        return int(most * float(torch.rand(1, generator=generator, device=generator.device)))

    def _path(self, moment: Moment, x: Float[Tensor, "B C h w"], end: int) -> Float[Tensor, "B C h w"]:
        """The guided noise at time ``end`` of the DDIM path from ``x``, which is noise at T - 1."""
        omega, last = self.guidance_scale(moment.progress), len(moment.schedule) - 1
        cuts = (last * (self.path_steps - step) // self.path_steps for step in range(self.path_steps + 1))
        *above, there = [moment.same_timestep(time) for time in (*(cut for cut in cuts if cut > end), end)]
        for at, to in pairwise([*above, there]):
            x = moment.schedule.ddim_step(x, moment.prior.noise(x, at, moment.condition).guided(omega), at, to)
        return moment.prior.noise(x, there, moment.condition).guided(omega)

    def _reference(
        self, moment: Moment, x_t: Float[Tensor, "B C h w"], t: Int[Tensor, "B"]
    ) -> Float[Tensor, "B C h w"]:
        if self.reference == "guided":
            return moment.prior.noise(x_t, t, moment.condition).guided(1.0)
        return moment.prior.predict_noise([Query(x_t, t, "positive")], moment.condition)[0]
