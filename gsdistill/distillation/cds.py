"""CDS: Consistency Distillation Sampling (Consistent3D, arXiv 2401.09050, and its released program).

In the ratio s_t = sigma_t / alpha_t, with eps* one noise tensor for all steps and views:
    n annealed over the run,  t = n + U{gap, .., gap + spread - 1}
    z_t = x0 + s_t eps*                  e1 = eps_cfg(z_t / sqrt(1 + s_t^2), t)
    z_n = z_t + (s_n - s_t) e1           e2 = eps_cfg(z_n / sqrt(1 + s_n^2), n)      (an Euler step of the ODE)
    g = w(t) (e1 - e2)
The sign is the released program's; the opposite one diverges. For Gaussian data N(mu, tau^2) the attractor is
x0 = mu - s_t eps*: the noise is imprinted unless t falls to nearly 0, so pixel priors want a schedule that ends low.
With ``rescale`` the guided x0 at t is moved towards the conditional one's standard deviation (e1 becomes e1'), and
    g = -w(t) [(s_t / s_n) (e1' - e1) + (e2 - e1')].
A step costs two sequential network calls of two evaluations a view each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gsdistill.config import bounded
from gsdistill.distillation.base import Distillation, State, Weighting, draw_noise, weight
from gsdistill.errors import ConfigError
from gsdistill.prior.base import Noise, Prior
from gsdistill.ramp import Ramp
from gsdistill.structs import Cameras, Condition, Guidance

__all__ = ["CDS"]


@dataclass(frozen=True)
class CDS(Distillation):
    """The released coarse-stage settings; all times are fractions of the prior's schedule."""

    # omega, falling over the run (the release's 100 to 50 in the other definition of guidance)
    guidance_scale: Ramp = bounded(Ramp(101.0, 51.0), low=0)
    # n, the nearer timestep
    near: Ramp = bounded(Ramp(0.7, 0.1, "sqrt"), low=0, high=0.98)
    # lowest n
    near_min: float = bounded(0.1, low=0, high=0.98)
    # smallest distance from n to t
    gap: Ramp = bounded(Ramp(0.1, 0.1), above=0, high=1)
    # width of the range of t above n + gap
    spread: Ramp = bounded(Ramp(0.2, 0.2), above=0, high=1)
    # highest t
    t_max: float = bounded(0.98, above=0, high=1)
    # eps*: one for the run, plus and minus that one by turns, or a fresh one for each step and view
    noise: Literal["fixed", "antithetic", "fresh"] = "fixed"
    # w(t)
    weighting: Weighting = "uniform"
    # elements of g are clipped to this value; 0 does not clip
    clip: Ramp = bounded(Ramp(2.0, 8.0), low=0)
    # share of the guided x0 that is rescaled to the conditional one's standard deviation
    rescale: float = bounded(0.0, low=0, high=1)

    def __post_init__(self) -> None:
        room = self.t_max - max(self.gap.start, self.gap.end)
        if self.near_min > room:
            raise ConfigError(
                f"method.near_min = {self.near_min:g} leaves no room below t_max - gap = {room:g}; lower one"
            )

    def init_state(self, prior: Prior, generator: torch.Generator) -> State:
        """Draw eps*."""
        return {"noise": torch.randn(prior.latent_shape, generator=generator, device=generator.device)}

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
        """One CDS gradient, see the module."""
        n, t = self._timesteps(progress, len(latents), prior, generator)
        eps, state = self._noise(latents, state, generator)
        omega, before = self.guidance_scale(progress), prior.evaluations
        (alpha_t, sigma_t), (alpha_n, sigma_n) = prior.schedule.at(t, latents), prior.schedule.at(n, latents)
        s_t, s_n = sigma_t / alpha_t, sigma_n / alpha_n
        z_t = latents + s_t * eps
        x_t = z_t / (1 + s_t.square()).sqrt()
        first = prior.noise(x_t, t, condition)
        e1 = first.guided(omega)
        e1_rescaled = self._rescaled(first, e1, x_t, alpha_t, sigma_t)
        z_n = z_t + (s_n - s_t) * e1_rescaled
        e2 = prior.noise(z_n / (1 + s_n.square()).sqrt(), n, condition).guided(omega)
        g = -weight(self.weighting, prior.schedule, t, latents) * (s_t / s_n * (e1_rescaled - e1) + e2 - e1_rescaled)
        limit = self.clip(progress)
        g = g.clamp(-limit, limit) if limit > 0 else g
        return Guidance(g, prior.evaluations - before, {"timestep": t.float().mean()}), state

    def _timesteps(
        self, progress: float, count: int, prior: Prior, generator: torch.Generator
    ) -> tuple[Int[Tensor, "B"], Int[Tensor, "B"]]:
        steps = len(prior.schedule)
        gap, spread = round(self.gap(progress) * steps), max(round(self.spread(progress) * steps), 1)
        highest = min(round(self.t_max * steps), steps - 1)
        n = min(max(round(self.near(progress) * steps), round(self.near_min * steps)), highest - gap)
        jump = torch.randint(gap, gap + spread, (count,), generator=generator, device=generator.device)
        t = (n + jump).clamp_max(highest)
        return torch.full_like(t, n), t

    def _noise(
        self, latents: Float[Tensor, "B C h w"], state: State, generator: torch.Generator
    ) -> tuple[Float[Tensor, "B C h w"], State]:
        if self.noise == "fresh":
            return draw_noise(latents.shape, latents, generator), state
        eps = state["noise"]
        following = {"noise": -eps} if self.noise == "antithetic" else state
        return eps.to(latents).expand(latents.shape), following

    def _rescaled(
        self, noise: Noise, e1: Tensor, x_t: Tensor, alpha_t: Tensor, sigma_t: Tensor
    ) -> Float[Tensor, "B C h w"]:
        if self.rescale == 0:
            return e1
        guided, conditional = ((x_t - sigma_t * e) / alpha_t for e in (e1, noise.conditional))
        ratio = conditional.std((1, 2, 3), keepdim=True) / guided.std((1, 2, 3), keepdim=True)
        target = guided * (self.rescale * ratio + 1 - self.rescale)
        return (x_t - alpha_t * target) / sigma_t
