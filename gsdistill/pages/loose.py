"""The view that shows the most of an object's loose Gaussians, those outside of its largest part (scene/parts.py).

A turntable shows only what is near the object, and from one elevation. Here the camera goes back until every visible
Gaussian is in the picture, however far away. Of 24 sides, eight azimuths at three elevations, the one is chosen where
loose Gaussians have the most light. This light is the picture of the same splat with loose Gaussians in white and all
others in black, because a picture is linear in the colours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.renderer.base import render
from gsdistill.scene.parts import LEVEL, parts
from gsdistill.scene.viewpoints import look_at_origin

if TYPE_CHECKING:
    from gsdistill.core.structs import Cameras

__all__ = ["Loose", "find_loose"]

AZIMUTHS, ELEVATIONS, FOV, DISTANCE = 8, (-35.0, 15.0, 60.0), 40.0, 3.2
SIZE = 96  # pixels of the pictures that are compared
LEAST = 0.5  # pixels of light, below which nothing loose is seen


@dataclass(frozen=True)
class Loose:
    """Where to look from, and how much is loose."""

    azimuth: float  # degrees
    elevation: float  # degrees
    distance: float  # world units
    share: float  # of the summed opacity, 0..1, outside of the largest part

    def camera(self, size: int) -> Cameras:
        """The camera of the picture, ``size`` pixels wide and high."""
        view = (self.azimuth, self.elevation, self.distance, FOV)
        return look_at_origin(*torch.tensor(view)[:, None].unbind(), size=size)


def find_loose(gaussians: Gaussians) -> Loose | None:
    """The side that shows the most of the loose Gaussians; None where none of them is seen."""
    opacities = torch.sigmoid(gaussians.opacities)
    loose = parts(gaussians) > 0
    visible = opacities > LEVEL
    if not (loose & visible).any():
        return None
    reach = (gaussians.means.norm(dim=1) + 2.0 * gaussians.scales.exp().amax(1))[visible].max()
    distance = max(DISTANCE, float(reach) / math.sin(math.radians(FOV / 2)))
    azimuths = torch.arange(AZIMUTHS).repeat(len(ELEVATIONS)) * (360.0 / AZIMUTHS)
    elevations = torch.tensor(ELEVATIONS).repeat_interleave(AZIMUTHS)
    ones = torch.ones(len(azimuths))
    cameras = look_at_origin(azimuths, elevations, distance * ones, FOV * ones, SIZE)
    white = torch.where(loose, 0.5, -0.5)[:, None, None].expand(-1, 1, 3) / SH_C0
    with torch.no_grad():
        images = render(replace(gaussians, sh=white.contiguous()), cameras, torch.zeros(len(ones), 3)).images
    light = images.mean(-1).sum((1, 2))
    best = int(light.argmax())
    if light[best] < LEAST:
        return None
    share = float(opacities[loose].sum() / opacities.sum())
    return Loose(float(azimuths[best]), float(elevations[best]), distance, share)
