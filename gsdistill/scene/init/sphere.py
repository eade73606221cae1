"""Grey, translucent Gaussians, uniform on the surface of a sphere: a shell with nothing inside.

The share of each of N Gaussians on a sphere of radius R is a disc of radius 2 R / N^(1/2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Gaussians
from gsdistill.scene.init.base import Initialiser
from gsdistill.scene.init.uniform import UniformSettings, directions

__all__ = ["Sphere"]


@dataclass(frozen=True, kw_only=True)
class Sphere(UniformSettings, Initialiser):
    """Settings of the sphere initialiser."""

    radius: float = bounded(0.6, above=0, high=1)  # of the sphere, world units

    def create(self, prompt: str, generator: torch.Generator, device: torch.device | str = "cpu") -> Gaussians:
        """Return ``count`` Gaussians at one distance from the origin; the prompt is ignored."""
        means = self.radius * directions(self.count, generator)
        return self.grey(means, self.scale * self.radius * 2.0 / self.count**0.5)
