"""CSD: Classifier Score Distillation (arXiv 2310.19415, eq. 6).

    g = w(t) omega h,   h = eps_c - eps_u,   t ~ U(t_min T, t_max T)

The guidance direction alone: neither the mode-seeking term eps_c nor the noise of SDS. It is SSD with M = 0.
A step costs two network evaluations a view in one call.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

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
from gsdistill.prior.base import Prior
from gsdistill.ramp import Ramp
from gsdistill.structs import Condition, Guidance, Views

__all__ = ["CSD"]


@dataclass(frozen=True)
class CSD(Distillation):
    """The published settings."""

    # omega, a plain factor here; Adam does not feel it, penalties are weighed against it
    guidance_scale: Ramp = bounded(Ramp(7.5, 7.5), low=0)
    # lowest timestep, as a fraction of the prior's schedule
    t_min: Ramp = bounded(Ramp(0.02, 0.02), low=0, high=1)
    # highest timestep, as a fraction of the prior's schedule
    t_max: Ramp = bounded(Ramp(0.98, 0.98), low=0, high=1)
    # w(t)
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        check_times(self.t_min, self.t_max)

    def init_state(self, prior: Prior, generator: torch.Generator) -> State:
        """CSD remembers nothing."""
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
        """One CSD gradient, see the module."""
        x0, before = views.latents, prior.evaluations
        t = draw_timesteps(self.t_min(progress), self.t_max(progress), len(x0), prior.schedule, generator)
        eps = draw_noise(x0.shape, x0, generator)
        noise = prior.noise(prior.schedule.add_noise(x0, eps, t), t, condition)
        g = weight(self.weighting, prior.schedule, t, x0) * self.guidance_scale(progress) * noise.direction
        return Guidance(g, prior.evaluations - before, {"timestep": t.float().mean()}), state
