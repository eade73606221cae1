"""Grey, translucent Gaussians, uniform in a ball: a start that favours no shape.

A uniform point of the ball is R u^(1/3) along a uniform direction; the share of each of N Gaussians is a small ball of
radius R / N^(1/3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Gaussians
from gsdistill.scene.init.base import Initialiser
from gsdistill.scene.init.uniform import UniformSettings, directions

__all__ = ["Ball"]


@dataclass(frozen=True, kw_only=True)
class Ball(UniformSettings, Initialiser):
    """Settings of the ball initialiser."""

    radius: float = bounded(0.6, above=0, high=1)  # of the ball, world units

    def create(self, prompt: str, generator: torch.Generator, device: torch.device | str = "cpu") -> Gaussians:
        """Return ``count`` Gaussians around the origin; the prompt is ignored."""
        along = directions(self.count, generator)
        radii = torch.rand(self.count, 1, generator=generator) ** (1 / 3)
        return self.grey(self.radius * radii * along, self.scale * self.radius * self.count ** (-1 / 3))
