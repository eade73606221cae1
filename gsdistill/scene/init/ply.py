"""A PLY file to start from: a splat as it is, or a point cloud with a Gaussian on every point.

A point cloud has the vertex properties x y z, and for colours red green blue or r g b; without them it is grey.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.errors import BadFile
from gsdistill.frames import Frame
from gsdistill.scene.init.base import CloudSettings, Initialiser
from gsdistill.scene.ply import POSITION, Columns, gaussians_from, read_vertices, stacked
from gsdistill.scene.turn import frame_matrix
from gsdistill.structs import Gaussians, PointCloud

__all__ = ["Ply"]

COLORS = (("red", "green", "blue"), ("r", "g", "b"))
OF_A_SPLAT = {"f_dc_0", "opacity", "scale_0", "rot_0"}


@dataclass(frozen=True, kw_only=True)
class Ply(CloudSettings, Initialiser):
    """Settings of the PLY initialiser; all but ``path`` and ``frame`` are for point clouds only."""

    path: Path  # of a splat in the INRIA layout, or of a point cloud
    # axes of a file that does not name them: rdf (y down, as most splats), y-up, z-up, unity or world; none: world
    frame: Frame | None = None

    def create(self, prompt: str, generator: torch.Generator, device: torch.device | str = "cpu") -> Gaussians:
        """Return the Gaussians of the file, a splat's as they are, in our axes; the prompt plays no part.

        Raises:
            BadFile: the file is broken, or a point cloud has fewer than four points or no extent.
        """
        vertices = read_vertices(self.path)
        columns = vertices.columns
        if OF_A_SPLAT & columns.keys():
            return gaussians_from(vertices, self.frame)
        matrix = frame_matrix(vertices.axes(self.frame))
        points = (stacked(columns, POSITION, self.path).double() @ matrix).float()
        cloud = PointCloud(points, _colors(columns, self.path))
        return self.dress(cloud, generator, str(self.path))


def _colors(columns: Columns, path: Path) -> Float[Tensor, "N 3"]:
    """Return colours in 0..1: whole numbers are divided by the largest of their type; grey where there are none."""
    for names in COLORS:
        if set(names) <= columns.keys():
            colors = stacked(columns, names, path)
            kind = columns[names[0]].dtype
            if np.issubdtype(kind, np.integer):
                colors = colors / np.iinfo(kind).max
            if colors.min() < 0 or colors.max() > 1:
                raise BadFile(f"{path}: colours {' '.join(names)} of type {kind} must lie in 0..1")
            return colors
    return torch.full((len(columns["x"]), 3), 0.5)
