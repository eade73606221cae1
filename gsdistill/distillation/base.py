"""What every score-distillation method shares: the interface, timesteps, weights, noise and the surrogate loss.

Notation (one for all files): x0 latents of the rendered views; x_t = alpha_t x0 + sigma_t eps;
s_t = sigma_t / alpha_t; omega guidance scale; h = eps_c - eps_u, or the Perp-Neg aggregate in its place; w(t) weight;
T length of the prior's schedule; g the gradient a method gives to x0, along which the optimiser descends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Condition, Guidance, Views, send
from gsdistill.prior.base import Prior
from gsdistill.prior.schedule import NoiseSchedule
from gsdistill.settings.ramp import Ramp

__all__ = ["Distillation", "Moment", "State", "Surface", "Weighting", "check_times", "dot", "surrogate_loss"]

State = Mapping[str, Tensor]  # what a method remembers between steps; it goes into checkpoints
Weighting = Literal["sds", "uniform", "fantasia3d", "snr", "flow", "pf-ode"]


@dataclass(frozen=True)
class Surface:
    """What the views show at the corners of a latent's pixels, means over the pixels of the render around each."""

    points: Float[Tensor, "B rows columns 3"]  # h + 1 and w + 1; of the surface, world units; 0 where nothing is
    alphas: Float[Tensor, "B rows columns"]  # accumulated opacity, 0..1


@dataclass(frozen=True)
class Moment:
    """What a method is given at a step, besides its memory; never the scene."""

    prior: Prior
    views: Views
    condition: Condition
    progress: float  # in [0, 1]
    generator: torch.Generator  # of the run: every random number comes from it
    depth: Float[Tensor, "B 1 h w"] | None = None  # mean z before the camera of what a latent shows, else 0; see NEEDS
    surface: Surface | None = None  # see NEEDS
    evaluations_before: int = field(init=False)  # of the prior

    def __post_init__(self) -> None:
        object.__setattr__(self, "evaluations_before", self.prior.evaluations)

    @property
    def x0(self) -> Float[Tensor, "B C h w"]:
        """The latents of the views."""
        return self.views.latents

    @property
    def schedule(self) -> NoiseSchedule:
        """The prior's noise levels."""
        return self.prior.schedule

    def draw_timesteps(self, low: Ramp, high: Ramp, shared: bool = False) -> Int[Tensor, "B"]:
        """One t a view, uniform in [low T, high T] as these schedules stand now, both ends included.

        Views that the prior sees together share theirs. If ``shared``, all views have the same.
        """
        first, last = self.schedule.index(low(self.progress)), self.schedule.index(high(self.progress))
        drawn = self.draw_integers(min(first, last), last + 1)
        return drawn[:1].expand(len(drawn)) if shared else drawn

    def draw_integers(self, low: int, high: int) -> Int[Tensor, "B"]:
        """Uniform in low .. high - 1, one a view; views that the prior sees together share theirs."""
        group, device = self.prior.view_group, self.generator.device
        drawn = torch.randint(low, high, (len(self.views) // group,), generator=self.generator, device=device)
        return send(drawn.repeat_interleave(group), self.x0)

    def draw_shares(self) -> Float[Tensor, "B"]:
        """Uniform in 0 .. 1, one a view; views that the prior sees together share theirs."""
        group, device = self.prior.view_group, self.generator.device
        drawn = torch.rand(len(self.views) // group, generator=self.generator, device=device)
        return send(drawn.repeat_interleave(group), self.x0)

    def same_timestep(self, t: int) -> Int[Tensor, "B"]:
        """``t`` for every view."""
        return torch.full((len(self.views),), t, device=self.x0.device)

    def draw_noise(self) -> Float[Tensor, "B C h w"]:
        """Standard normal noise, fresh for every view."""
        return send(torch.randn(self.x0.shape, generator=self.generator, device=self.generator.device), self.x0)

    def weight(self, kind: Weighting, t: Int[Tensor, "B"]) -> Float[Tensor, "B 1 1 1"]:
        """w(t): ``sds`` sigma^2, ``uniform`` 1, ``fantasia3d`` alpha sigma^2, ``snr`` s_t, ``flow`` 1 / alpha.

        ``flow`` makes of the noise the error of a rectified flow's velocity. ``pf-ode`` is ds/dt for a step of one
        timestep, s_t - s_{t-1} (s_0 at t = 0): FSD (arXiv 2405.10988) with it is DDIM where t falls by one a step.
        """
        alpha, sigma = self.schedule.at(t, self.x0)
        if kind == "pf-ode":
            before, none = self.schedule.at((t - 1).clamp_min(0), self.x0)
            return sigma / alpha - torch.where((t > 0).to(sigma.device)[:, None, None, None], none / before, 0.0)
        weights = {"sds": sigma.square(), "fantasia3d": alpha * sigma.square(), "snr": sigma / alpha, "flow": 1 / alpha}
        return weights.get(kind, torch.ones_like(sigma))

    def answer(
        self, gradient: Float[Tensor, "B C h w"], t: Int[Tensor, "B"], more: Mapping[str, Tensor] | None = None
    ) -> Guidance:
        """A method's answer, with the network evaluations since the moment began, the mean of t and more figures."""
        figures = {"timestep": t.float().mean(), **(more or {})}
        return Guidance(gradient, self.prior.evaluations - self.evaluations_before, figures)


@dataclass(frozen=True)
class Distillation(ABC):
    """Settings plus pure functions; a leaf is a frozen dataclass whose fields are its settings."""

    _: KW_ONLY
    # elements of g are clipped to this value; 0 does not clip
    clip: Ramp = bounded(Ramp(0.0, 0.0), low=0)

    NEEDS: ClassVar[tuple[Literal["depth", "surface"], ...]] = ()  # what of a moment is computed for such methods alone

    def endings(self) -> Mapping[str, str]:
        """Texts that are asked besides the prompt's, by the name of their branch: what stands behind each view's."""
        return {}

    def init_state(self, prior: Prior, generator: torch.Generator) -> State:
        """What is drawn once, before the first step; nothing, unless a method says otherwise."""
        return {}

    @abstractmethod
    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """The gradient for the latents of the views, and the next state."""

    def clipped(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """The same with every element of the gradient in -clip..clip."""
        guidance, state = self.gradient(moment, state)
        if limit := self.clip(moment.progress):
            guidance = replace(guidance, gradient=guidance.gradient.clamp(-limit, limit))
        return guidance, state


def surrogate_loss(latents: Float[Tensor, "B C h w"], gradient: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """0.5 sum((x0 - stopgrad(x0 - g))^2) / B: its gradient with respect to x0 is g / B."""
    target = (latents - gradient).detach()
    return 0.5 * (latents - target).square().sum() / latents.shape[0]


def check_times(t_min: Ramp, t_max: Ramp) -> None:
    """Refuse a range of timesteps that is empty at the start or at the end of a run. Raises ConfigError."""
    for end in (0.0, 1.0):
        if t_min(end) > t_max(end):
            raise ConfigError(f"method.t_min = {t_min} exceeds method.t_max = {t_max} at progress {end:g}; lower t_min")


def dot(a: Float[Tensor, "B C h w"], b: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 1 1 1"]:
    """<a, b> of each sample."""
    return (a * b).sum((1, 2, 3), keepdim=True)
