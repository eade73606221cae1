"""Grey, translucent Gaussians, uniform in a box: a start for flat, long or tall objects.

The share of each of N Gaussians in a box of half-extents a, b and c is a small ball of radius (6 a b c / (pi N))^(1/3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Gaussians
from gsdistill.scene.init.base import Initialiser
from gsdistill.scene.init.uniform import UniformSettings

__all__ = ["Box"]


@dataclass(frozen=True, kw_only=True)
class Box(UniformSettings, Initialiser):
    """Settings of the box initialiser."""

    size: tuple[float, float, float] = bounded((0.5, 0.5, 0.5), above=0)  # half-extents along x (front), y and z (up)

    def __post_init__(self) -> None:
        super().__post_init__()
        corner = math.hypot(*self.size)
        if corner > 1:
            raise ConfigError(
                f"init.size = {list(self.size)} leaves the unit ball: its corner lies at {corner:.3g}, allowed is 1"
            )

    def create(self, prompt: str, generator: torch.Generator, device: torch.device | str = "cpu") -> Gaussians:
        """Return ``count`` Gaussians around the origin; the prompt is ignored."""
        places = 2.0 * torch.rand(self.count, 3, generator=generator) - 1.0
        share = (6.0 * math.prod(self.size) / (math.pi * self.count)) ** (1 / 3)
        return self.grey(places * torch.tensor(self.size), self.scale * share)
