"""The contract of an analytic world: p(x | y) and p(x) over points or pictures, mixtures in closed form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.prior.analytic import AnalyticPrior, Mixture

__all__ = ["AnalyticWorld", "Densities", "points"]

POINT = (2, 1, 1)  # the latent shape of a point in the plane


@dataclass(frozen=True)
class Densities:
    """The densities of a world for one prompt, over D = C h w numbers."""

    conditional: Mixture  # p(x | y)
    unconditional: Mixture  # p(x)
    latent_shape: tuple[int, int, int]

    @property
    def prior(self) -> AnalyticPrior:
        """A new prior that predicts the noise exactly."""
        return AnalyticPrior(self.conditional, self.unconditional, self.latent_shape)

    @property
    def modes(self) -> Float[Tensor, "K h w 3"]:
        """The means of p(x | y) as images in 0..1; for worlds of pictures."""
        return 0.5 * self.conditional.means.unflatten(1, self.latent_shape).permute(0, 2, 3, 1) + 0.5

    @property
    def plane(self) -> bool:
        """Whether this is a world of points in the plane, which can be drawn as a map."""
        return self.latent_shape == POINT


class AnalyticWorld(ABC):
    """Settings of a world whose densities are known in closed form; subclasses are final frozen dataclasses."""

    @abstractmethod
    def densities(self, prompt: str) -> Densities:
        """The densities for ``prompt``, which worlds of points ignore.

        Raises:
            PromptError: the world has no picture of ``prompt``.
        """


def points(weights: list[float], means: list[tuple[float, float]], deviations: list[float]) -> Mixture:
    """A mixture of K isotropic Gaussians in the plane, float64."""
    rows: Float[Tensor, "K 2"] = torch.tensor(means, dtype=torch.float64)
    return Mixture(torch.tensor(weights, dtype=torch.float64), rows, torch.tensor(deviations, dtype=torch.float64))
