"""SDS: Score Distillation Sampling (DreamFusion, arXiv 2209.14988, eq. 3).

    g = w(t) (eps_cfg(x_t) - eps),   t ~ U(t_min T, t_max T),  eps fresh at every step

A step costs two network evaluations a view (conditional and unconditional) in one call.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.config import bounded
from gsdistill.distillation.base import Distillation, State, Weighting, draw_noise, draw_timesteps, weight
from gsdistill.errors import ConfigError
from gsdistill.prior.base import Prior
from gsdistill.ramp import Ramp
from gsdistill.structs import Cameras, Condition, Guidance

__all__ = ["SDS"]


@dataclass(frozen=True)
class SDS(Distillation):
    """The published settings for latent priors; shipped configs hold those for other priors."""

    # omega in eps_u + omega (eps_c - eps_u), 1 means no guidance; 100 suits latent priors, 20 DeepFloyd IF
    guidance_scale: Ramp = bounded(Ramp(100.0, 100.0), low=0)
    # lowest timestep, as a fraction of the prior's schedule
    t_min: Ramp = bounded(Ramp(0.02, 0.02), low=0, high=1)
    # highest timestep, as a fraction of the prior's schedule
    t_max: Ramp = bounded(Ramp(0.98, 0.98), low=0, high=1)
    # w(t)
    weighting: Weighting = field(default="sds")

    def __post_init__(self) -> None:
        for end in (0.0, 1.0):
            if self.t_min(end) > self.t_max(end):
                raise ConfigError(
                    f"method.t_min = {self.t_min} exceeds method.t_max = {self.t_max} at progress {end:g}; lower t_min"
                )

    def init_state(self, prior: Prior, generator: torch.Generator) -> State:
        """SDS remembers nothing."""
        return {}

    def gradient(
        self,
        prior: Prior,
        latents: Float[Tensor, "B C h w"],
        condition: Condition,
        cameras: Cameras,
        progress: float,
        state: State,
        generator: torch.Generator,
    ) -> tuple[Guidance, State]:
        """One SDS gradient, see the module."""
        t = draw_timesteps(self.t_min(progress), self.t_max(progress), len(latents), prior.schedule, generator)
        eps = draw_noise(latents.shape, latents, generator)
        before = prior.evaluations
        noise = prior.noise(prior.schedule.add_noise(latents, eps, t), t, condition)
        g = weight(self.weighting, prior.schedule, t, latents) * (noise.guided(self.guidance_scale(progress)) - eps)
        return Guidance(g, prior.evaluations - before, {"timestep": t.float().mean()}), state
