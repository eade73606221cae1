"""The contract of a world: a conditional and an unconditional mixture over points or pictures, known in closed form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.prior.analytic import AnalyticPrior, Mixture

__all__ = ["Stage", "World", "points"]

POINT = (2, 1, 1)  # the latent shape of a point in the plane


@dataclass(frozen=True)
class Stage:
    """A world made for one prompt; D = C h w."""

    conditional: Mixture  # p(x | y)
    unconditional: Mixture  # p(x)
    latent_shape: tuple[int, int, int]

    @property
    def prior(self) -> AnalyticPrior:
        """A new prior that answers exactly."""
        return AnalyticPrior(self.conditional, self.unconditional, self.latent_shape)

    @property
    def modes(self) -> Float[Tensor, "K h w 3"]:
        """The means of p(x | y) as images in 0..1, of a world of pictures."""
        return 0.5 * self.conditional.means.unflatten(1, self.latent_shape).permute(0, 2, 3, 1) + 0.5

    @property
    def plane(self) -> bool:
        """True where the world is one of points, which can be drawn as a map."""
        return self.latent_shape == POINT


class World(ABC):
    """Settings of one world; subclasses are final frozen dataclasses."""

    @abstractmethod
    def stage(self, prompt: str) -> Stage:
        """Make the world.

        Raises:
            PromptError: the world has pictures, and none of ``prompt``.
        """


def points(weights: list[float], means: list[tuple[float, float]], deviations: list[float]) -> Mixture:
    """A mixture of isotropic Gaussians in the plane."""
    rows: Float[Tensor, "K 2"] = torch.tensor(means, dtype=torch.float64)
    return Mixture(torch.tensor(weights, dtype=torch.float64), rows, torch.tensor(deviations, dtype=torch.float64))
