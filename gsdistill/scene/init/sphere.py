"""Grey, half-transparent Gaussians, uniform in a ball (or on its surface): a start that favours no shape.

A uniform point of the ball is r = R u^(1/3) along a uniform direction. The share of each of N Gaussians in the ball is
a small ball of radius R / N^(1/3); on the surface it is a disc of radius 2 R / N^(1/2). The standard deviation is
``scale`` times that radius.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from gsdistill.config import bounded
from gsdistill.scene.init.base import Initialiser, round_gaussians
from gsdistill.structs import Gaussians

__all__ = ["Sphere"]


@dataclass(frozen=True)
class Sphere(Initialiser):
    """Settings of the sphere initialiser."""

    count: int = bounded(600, low=1, high=10_000_000)  # number of Gaussians
    radius: float = bounded(0.6, above=0, high=1)  # of the ball, world units
    opacity: float = bounded(0.2, above=0, below=1)  # of each Gaussian, a probability
    scale: float = bounded(0.77, above=0)  # standard deviation over the radius of a Gaussian's share of the ball
    color: float = bounded(0.5, low=0, high=1)  # grey value of all Gaussians
    surface: bool = False  # on the surface of the ball instead of in it
    sh_degree: int = bounded(0, low=0, high=3)  # degree of the view-dependent colour, which starts at zero

    def create(self, prompt: str, generator: torch.Generator) -> Gaussians:
        """Return ``count`` Gaussians around the origin; the prompt plays no part."""
        directions = normalize(torch.randn(self.count, 3, generator=generator), dim=-1)
        if self.surface:
            radii, share = torch.ones(self.count, 1), 2.0 / self.count**0.5
        else:
            radii, share = torch.rand(self.count, 1, generator=generator) ** (1 / 3), self.count ** (-1 / 3)
        deviations = torch.full((self.count,), self.scale * self.radius * share)
        colors = torch.full((self.count, 3), self.color)
        return round_gaussians(self.radius * radii * directions, deviations, self.opacity, colors, self.sh_degree)
