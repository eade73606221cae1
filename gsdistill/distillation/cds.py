"""CDS: Consistency Distillation Sampling (Consistent3D, arXiv 2401.09050, and its released program).

n is annealed over the run, t = n + U{gap, .., gap + spread - 1}, eps* one noise tensor for all steps and views:
    z_t = x0 + s_t eps*                  e1 = eps_cfg(alpha_t z_t, t)
    z_n = z_t + (s_n - s_t) e1           e2 = eps_cfg(alpha_n z_n, n)      (an Euler step of the ODE)
    g = w(t) (e1 - e2)
The sign is the released program's; the opposite one diverges. For Gaussian data N(mu, tau^2) the attractor is
x0 = mu - s_t eps*: the noise is imprinted unless t falls to nearly 0.
``rescale`` moves the guided x0 at t to the conditional one's deviation: g = -w(t) [(s_t / s_n) (e1' - e1) + e2 - e1'].
A step costs two sequential network calls of two evaluations a view each.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Guidance
from gsdistill.distillation.base import Distillation, Moment, State, Weighting
from gsdistill.prior.base import Prior, Rescale
from gsdistill.settings.ramp import Ramp

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
    # share of the guided x0 that is rescaled to the conditional one's standard deviation
    rescale: float = bounded(0.0, low=0, high=1)
    _: KW_ONLY
    # elements of g are clipped to this value; 0 does not clip
    clip: Ramp = bounded(Ramp(2.0, 8.0), low=0)

    def __post_init__(self) -> None:
        room = self.t_max - max(self.gap.start, self.gap.end)
        if (low := self.near_min) > room:
            raise ConfigError(f"method.near_min = {low:g} leaves no room below t_max - gap = {room:g}; lower one")

    def init_state(self, prior: Prior, generator: torch.Generator) -> State:
        """Draw eps*."""
        return {"noise": torch.randn(prior.latent_shape, generator=generator, device=generator.device)}

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One CDS gradient, see the module."""
        prior, schedule, condition = moment.prior, moment.schedule, moment.condition
        n, t = self._timesteps(moment)
        eps, state = self._noise(moment, state)
        omega = self.guidance_scale(moment.progress)
        (alpha, sigma), (alpha_n, sigma_n) = schedule.at(t, eps), schedule.at(n, eps)
        x_t = schedule.add_noise(moment.x0, eps, t)
        noise = prior.noise(x_t, t, condition)
        e1 = noise.guided(omega)
        e1_rescaled = Rescale(x_t, alpha, sigma, self.rescale, 1).noise(e1, noise.conditional) if self.rescale else e1
        e2 = prior.noise(schedule.ddim_step(x_t, e1_rescaled, t, n), n, condition).guided(omega)
        ratio = (sigma / alpha) / (sigma_n / alpha_n)
        g = -moment.weight(self.weighting, t) * (ratio * (e1_rescaled - e1) + e2 - e1_rescaled)
        return moment.answer(g, t), state

    def _timesteps(self, moment: Moment) -> tuple[Int[Tensor, "B"], Int[Tensor, "B"]]:
        """The nearer times n and the noisier times t."""
        index, progress = moment.schedule.index, moment.progress
        gap, spread, highest = index(self.gap(progress)), max(index(self.spread(progress)), 1), index(self.t_max)
        n = moment.same_timestep(min(max(index(self.near(progress)), index(self.near_min)), highest - gap))
        return n, (n + moment.draw_integers(gap, gap + spread)).clamp_max(highest)

    def _noise(self, moment: Moment, state: State) -> tuple[Float[Tensor, "B C h w"], State]:
        if self.noise == "fresh":
            return moment.draw_noise(), state
        eps = state["noise"]
        following = {"noise": -eps} if self.noise == "antithetic" else state
        return eps.to(moment.x0).expand(moment.x0.shape), following
