"""One Gaussian in the plane given the prompt, N(mu, tau^2), and a broad one without it, N(mu_u, tau_u^2)."""

from __future__ import annotations

from dataclasses import dataclass

from gsdistill.core.ranges import bounded
from gsdistill.laboratory.worlds.base import POINT, AnalyticWorld, Densities, points

__all__ = ["Gaussian"]


@dataclass(frozen=True)
class Gaussian(AnalyticWorld):
    """Settings of the world."""

    mean: tuple[float, float] = (1.0, 0.5)  # mu
    deviation: float = bounded(0.25, above=0)  # tau
    broad_mean: tuple[float, float] = (0.0, 0.0)  # mu_u
    broad_deviation: float = bounded(1.0, above=0)  # tau_u

    def densities(self, prompt: str) -> Densities:
        """The densities, which do not depend on the prompt."""
        conditional = points([1.0], [self.mean], [self.deviation])
        return Densities(conditional, points([1.0], [self.broad_mean], [self.broad_deviation]), POINT)
