"""The contract of a law of cameras: it draws the cameras of a step, and says within which ranges they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Cameras

__all__ = ["MOMENTS", "CameraLaw", "Ranges"]

# The least and the greatest azimuth, elevation and fov (degrees) and distance (world units), by these names.
Ranges: TypeAlias = Mapping[str, tuple[float, float]]
MOMENTS = tuple(i / 100 for i in range(101))  # the progress at which ranges that change over a stage are checked


@dataclass(frozen=True, kw_only=True)
class CameraLaw(ABC):
    """Settings of one way to draw cameras; subclasses are final frozen dataclasses."""

    group: int | None = bounded(None, low=1)  # views in a row at equal steps of azimuth; none: the prior's number

    @abstractmethod
    def draw(self, count: int, size: int, progress: float, generator: torch.Generator) -> Cameras:
        """Draw ``count`` cameras, a multiple of the group, with square images of ``size`` pixels; float32 on the CPU.

        ``progress`` is the finished share, 0..1, of the stage. The same state of the generator gives the same cameras.
        """

    @abstractmethod
    def ranges(self, progress: float) -> Ranges:
        """The ranges that the told azimuths, elevations and distances, and the fields of view, have at ``progress``."""

    def check(self, views: int, group: int) -> None:  # noqa: B027
        """Refuse a number of views in a step, or of a group, that the settings do not go with. Raises ConfigError."""

    def reach(self) -> Ranges:
        """The ranges of the whole stage."""
        every = [self.ranges(moment) for moment in MOMENTS]
        return {
            name: (min(ranges[name][0] for ranges in every), max(ranges[name][1] for ranges in every))
            for name in every[0]
        }
