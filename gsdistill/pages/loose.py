"""What floats loose of an object, from the side that shows the most of it, however far away it is.

A turntable shows what is near the object at one elevation. Here the camera goes back until every Gaussian that can be
seen is in the picture, and of 24 sides, eight azimuths at three elevations, the one is taken whose pixels hold the
most light of Gaussians outside of the largest part (scene/parts.py): a picture is linear in the colours, so it is the
picture of a splat whose loose Gaussians are white and whose others are black.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.renderer.base import render
from gsdistill.scene.cameras import look_at_origin
from gsdistill.scene.parts import LEVEL, parts

if TYPE_CHECKING:
    from gsdistill.core.structs import Cameras

__all__ = ["Loose", "find_loose"]

AZIMUTHS, ELEVATIONS, FOV, DISTANCE = 8, (-35.0, 15.0, 60.0), 40.0, 3.2
SIZE = 96  # pixels of the pictures that are compared
LEAST = 0.5  # pixels of light from which on it is seen


@dataclass(frozen=True)
class Loose:
    """Where to look from, and how much of the summed opacity lies outside of the largest part."""

    azimuth: float  # degrees
    elevation: float
    distance: float  # world units
    share: float  # 0..1

    def camera(self, size: int) -> Cameras:
        """The camera of the picture, ``size`` pixels wide and high."""
        view = (self.azimuth, self.elevation, self.distance, FOV)
        azimuth, elevation, distance, fov = (torch.tensor([value]) for value in view)
        return look_at_origin(azimuth, elevation, distance, fov, size)


def find_loose(gaussians: Gaussians) -> Loose | None:
    """The side that shows the most of what floats loose; None where nothing of it is seen."""
    opacities = torch.sigmoid(gaussians.opacities)
    loose = parts(gaussians) > 0
    seen = opacities > LEVEL
    if not (loose & seen).any():
        return None
    reach = (gaussians.means.norm(dim=1) + 2.0 * gaussians.scales.exp().amax(1))[seen].max()
    distance = max(DISTANCE, float(reach) / math.sin(math.radians(FOV / 2)))
    azimuths = torch.arange(AZIMUTHS).repeat(len(ELEVATIONS)) * (360.0 / AZIMUTHS)
    elevations = torch.tensor(ELEVATIONS).repeat_interleave(AZIMUTHS)
    ones = torch.ones(len(azimuths))
    cameras = look_at_origin(azimuths, elevations, distance * ones, FOV * ones, SIZE)
    white = torch.where(loose, 0.5, -0.5)[:, None, None].expand(-1, 1, 3) / SH_C0
    with torch.no_grad():
        light = render(replace(gaussians, sh=white.contiguous()), cameras, torch.zeros(len(ones), 3)).images
    seen = light.mean(-1).sum((1, 2))
    best = int(seen.argmax())
    if seen[best] < LEAST:
        return None
    share = float(opacities[loose].sum() / opacities.sum())
    return Loose(float(azimuths[best]), float(elevations[best]), distance, share)
