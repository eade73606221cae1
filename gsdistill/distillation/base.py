"""What every score-distillation method shares: the interface, timesteps, weights, noise and the surrogate loss.

Notation (one for all files): x0 latents of the rendered views; x_t = alpha_t x0 + sigma_t eps;
s_t = sigma_t / alpha_t; omega guidance scale; h = eps_c - eps_u, or the Perp-Neg aggregate in its place; w(t) weight;
T length of the prior's schedule; g the gradient a method gives to x0, along which the optimiser descends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gsdistill.errors import ConfigError
from gsdistill.prior.base import Prior
from gsdistill.prior.schedule import NoiseSchedule
from gsdistill.ramp import Ramp
from gsdistill.structs import Condition, Guidance, Views

__all__ = [
    "Distillation",
    "State",
    "Weighting",
    "check_times",
    "dot",
    "draw_noise",
    "draw_timesteps",
    "surrogate_loss",
    "weight",
]

State = Mapping[str, Tensor]  # what a method remembers between steps; it goes into checkpoints
Weighting = Literal["sds", "uniform", "fantasia3d", "snr"]


class Distillation(ABC):
    """Settings plus pure functions; a leaf is a frozen dataclass whose fields are its settings.

    A method sees latents, their opacity and cameras, a noise predictor and progress in [0, 1]; never the scene or the
    renderer.
    """

    @abstractmethod
    def init_state(self, prior: Prior, generator: torch.Generator) -> State:
        """What is drawn once, before the first step."""

    @abstractmethod
    def gradient(
        self,
        prior: Prior,
        views: Views,
        condition: Condition,
        progress: float,
        state: State,
        generator: torch.Generator,
    ) -> tuple[Guidance, State]:
        """The gradient for the latents of ``views``, and the next state."""


def surrogate_loss(latents: Float[Tensor, "B C h w"], gradient: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """0.5 sum((x0 - stopgrad(x0 - g))^2) / B: its gradient with respect to x0 is g / B."""
    target = (latents - gradient).detach()
    return 0.5 * (latents - target).square().sum() / latents.shape[0]


def weight(
    kind: Weighting, schedule: NoiseSchedule, t: Int[Tensor, "B"], like: Float[Tensor, "B C h w"]
) -> Float[Tensor, "B 1 1 1"]:
    """w(t): ``sds`` sigma^2, ``uniform`` 1, ``fantasia3d`` alpha sigma^2, ``snr`` sigma / alpha."""
    alpha, sigma = schedule.at(t, like)
    if kind == "sds":
        return sigma.square()
    if kind == "fantasia3d":
        return alpha * sigma.square()
    return sigma / alpha if kind == "snr" else torch.ones_like(sigma)


def check_times(t_min: Ramp, t_max: Ramp) -> None:
    """Refuse a range of timesteps that is empty at the start or at the end of a run. Raises ConfigError."""
    for end in (0.0, 1.0):
        if t_min(end) > t_max(end):
            raise ConfigError(f"method.t_min = {t_min} exceeds method.t_max = {t_max} at progress {end:g}; lower t_min")


def draw_timesteps(
    low: float, high: float, count: int, schedule: NoiseSchedule, generator: torch.Generator
) -> Int[Tensor, "B"]:
    """Integers uniform in [low T, high T] for fractions low <= high of the schedule, both ends included."""
    first, last = schedule.index(low), schedule.index(high)
    return torch.randint(min(first, last), last + 1, (count,), generator=generator, device=generator.device)


def draw_noise(shape: tuple[int, ...], like: Float[Tensor, "..."], generator: torch.Generator) -> Float[Tensor, "..."]:
    """Standard normal noise from the run's generator, of the type and on the device of ``like``."""
    return torch.randn(shape, generator=generator, device=generator.device).to(like)


def dot(a: Float[Tensor, "B C h w"], b: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 1 1 1"]:
    """<a, b> of each sample."""
    return (a * b).sum((1, 2, 3), keepdim=True)
