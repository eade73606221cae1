"""Splats as Markov chain Monte Carlo: dead Gaussians move to live ones, the number grows, and means get noise.

Source: S. Kheradmand et al., 3D Gaussian Splatting as Markov Chain Monte Carlo, 2024, arXiv 2404.09591.
A refinement adds ``growth`` of the present number until there are ``budget``. Each new Gaussian, and each dead one (of
an opacity up to ``prune_opacity``), takes the place and the looks of a live one, which is drawn in proportion to its
opacity. If N Gaussians then stand where one of opacity o and standard deviations s stood, each gets (equation 9)

    o' = 1 - (1 - o)^(1/N),   s' = s o / D,   D = sum_{i=1..N} sum_{k=0..i-1} C(i-1, k) (-1)^k o'^(k+1) / sqrt(k+1)

so that the opacity, integrated along a line through their common centre, stays the same. We compute D as that integral,
for any N and without the cancellation of the sum, with 1 / sqrt(j) = integral of exp(-j x^2) dx / sqrt(pi):

    D = 1 / sqrt(pi) integral of 1 - (1 - o' exp(-x^2))^N dx.

o' is kept at ``prune_opacity`` or above, and s' is computed from that o'. Adam's moments of all Gaussians involved are
reset. After every step the means move by rate noise_lr sigmoid(-100 (o - prune_opacity)) Sigma eta, with the means'
learning rate, the covariance Sigma and eta ~ N(0, I), so that only nearly dead Gaussians move far. ``noise_lr`` is
smaller than the paper's 500,000 because the means' rate is larger here: 0.01 of the scene's radius, not 0.00016.

The paper's penalties on opacities and deviations, 0.01 of their means beside a photometric loss, are settings of their
own: ``regularizers.opacity`` and ``regularizers.scale``. If nothing fades, nothing dies and nothing is moved. The
opacity penalty of 20 in the recipes of the shapes prior is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log, pi, sqrt
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import pad, softplus

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Render, send
from gsdistill.scene.densify.base import Densification, Densifier, DensifyReport, Stepped

__all__ = ["MCMC", "shared"]

STEEPNESS = 100.0  # of the noise's fall with opacity
FAINTEST = -60.0  # least exponent; below -87 float32 is subnormal, which is slow on a CPU, and nothing would move
REACH, PLACES = 6.0, 61  # of the trapezoid rule on one half of the line, which is exact to rounding for such functions


@dataclass(frozen=True, kw_only=True)
class MCMC(Densification):
    """How Gaussians move, grow in number and get noise. Times are fractions of the stage."""

    enabled: bool = True  # off: the initialiser's number of Gaussians stays, and nothing moves
    start: float = bounded(0.02, low=0, high=1)  # no refinement up to here
    stop: float = bounded(0.83, low=0, high=1)  # the last refinement is not after here
    every: float = bounded(0.02, above=0, high=1)  # between refinements
    growth: float = bounded(0.05, low=0, high=1)  # share by which a refinement adds Gaussians, up to the budget
    prune_opacity: float = bounded(0.005, above=0, below=0.5)  # ones up to it are dead, and are moved to live ones
    noise_lr: float = bounded(2_000.0, low=0)  # of the noise on the means, times their learning rate; 0: none

    def begin(self, iterations: int) -> Densifier:
        """Return the running state, which has no statistics."""
        return _Chain(self, iterations)


class _Chain(Densifier):
    def __init__(self, settings: MCMC, iterations: int) -> None:
        super().__init__(settings, iterations)
        self.settings = settings

    def observe(self, render: Render, good: Bool[Tensor, ""]) -> None:
        """Remember whether the step was ``good``; after another one nothing is moved or added."""
        self._good = good

    @torch.no_grad()
    def refine(
        self, params: dict[str, Parameter], optimizers: Mapping[str, Stepped], done: int, generator: torch.Generator
    ) -> DensifyReport | None:
        """See the base; a refinement that is due after a step that was not good is skipped."""
        n_before, due = len(params["means"]), self._due(done) and bool(self._good)
        grown = self._add_and_move(params, dict(optimizers), generator) if due else 0
        removed = self._keep_budget(params, dict(optimizers))
        return DensifyReport(n_before, grown, 0, removed) if due or removed else None

    @torch.no_grad()
    def disturb(self, params: Mapping[str, Parameter], rate: float, generator: torch.Generator) -> None:
        """Add noise to the means after a good step."""
        size = rate * self.settings.noise_lr
        if not size:
            return
        means, quats = params["means"], params["quats"] / params["quats"].norm(dim=-1, keepdim=True)
        drawn = send(torch.randn(means.shape, generator=generator, device=generator.device), means)
        above = params["opacities"].sigmoid() - self.settings.prune_opacity
        exponents = 2.0 * params["scales"] - softplus(STEEPNESS * above)[:, None]
        strength = exponents.clamp_min(FAINTEST).exp()
        # Sigma eta = R S^2 R' eta, and R' eta is distributed as eta
        noise = _rotated(quats, size * strength * drawn)
        means += torch.where(self._good, noise, 0.0)

    def _add_and_move(
        self, params: dict[str, Parameter], optimizers: dict[str, Any], generator: torch.Generator
    ) -> int:
        """Let new and dead Gaussians share the places of live ones; return how many are new."""
        from gsplat.strategy.ops import duplicate

        before, floor = len(params["means"]), self.settings.prune_opacity
        grown = max(0, min(self.budget, int((1.0 + self.settings.growth) * before)) - before)
        opacities = params["opacities"].sigmoid().cpu()
        alive = opacities > floor
        vacant = (~pad(alive, (0, grown))).nonzero()[:, 0]
        if not alive.any() or not len(vacant):
            return 0
        chosen = torch.multinomial(opacities * alive, len(vacant), replacement=True, generator=generator)
        givers, counts = chosen.unique(return_counts=True)
        device = params["means"].device
        duplicate(params, optimizers, self.state, torch.arange(before, device=device) < grown)
        vacant, chosen, givers, counts = (value.to(device) for value in (vacant, chosen, givers, counts))
        logits, scales = params["opacities"], params["scales"]
        logits[givers], scales[givers] = shared(logits[givers], scales[givers], counts + 1, floor)
        for key, value in params.items():
            value[vacant] = value[chosen]
            for moment in (m for name, m in optimizers[key].state.get(value, {}).items() if name != "step"):
                moment[vacant] = moment[givers] = 0.0
        return grown


def shared(
    opacities: Float[Tensor, "N"], scales: Float[Tensor, "N 3"], counts: Int[Tensor, "N"], floor: float
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 3"]]:
    """Return opacities and scales of each of ``counts`` (1, 2, ...) Gaussians in the place of one, by equation 9.

    ``opacities`` are logits and ``scales`` logarithms. No opacity becomes less than ``floor``, a probability.
    """
    thickness = softplus(opacities) / counts  # -log(1 - o')
    each = (thickness + torch.log(-torch.expm1(-thickness))).clamp_min(log(floor / (1.0 - floor)))
    x = torch.linspace(0.0, REACH, PLACES, dtype=scales.dtype, device=scales.device)
    profile = -torch.expm1(counts[:, None] * torch.log1p(-each.sigmoid()[:, None] * torch.exp(-x.square())))
    gathered = 2.0 / sqrt(pi) * torch.trapezoid(profile, x)
    return each, scales + torch.log(opacities.sigmoid() / gathered)[:, None]


def _rotated(quats: Float[Tensor, "N 4"], vectors: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """``vectors`` turned by unit quaternions, wxyz."""
    w, axis = quats[:, :1], quats[:, 1:]
    twice = 2.0 * torch.linalg.cross(axis, vectors)
    return vectors + w * twice + torch.linalg.cross(axis, twice)
