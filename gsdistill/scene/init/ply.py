"""A file to start from: a splat of any format as it is, or a point cloud, .ply, with a Gaussian on every point.

A point cloud has the vertex properties x y z, and for colours red green blue, r g b or diffuse_red diffuse_green
diffuse_blue, in capitals too; without them it is grey. Points far away are left out: when the cloud is scaled into the
ball, they would squeeze all others into one place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gsdistill.core.errors import tell
from gsdistill.core.frames import Frame
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Gaussians, PointCloud
from gsdistill.scene.clouds import near
from gsdistill.scene.columns import RGB, Columns, scale_colors, stacked
from gsdistill.scene.init.base import CloudSettings, Initialiser
from gsdistill.scene.ply import POSITION, read_vertices
from gsdistill.scene.read import content_of, is_ply, open_splat
from gsdistill.scene.turn import frame_matrix

__all__ = ["Ply"]

COLORS = (RGB, ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))
FAR = 1000  # a middle this many times as far from the origin as points are from the middle blurs them in float32
LIKE_A_COLOR = re.compile(r"red|green|blue|colou?r|rgb|intensity|gr[ae]y|albedo", re.IGNORECASE)
OF_A_SPLAT = {"f_dc_0", "opacity", "scale_0", "rot_0", "packed_position"}


@dataclass(frozen=True, kw_only=True)
class Ply(CloudSettings, Initialiser):
    """Settings of the PLY initialiser; all but ``path``, ``frame`` and ``clean`` are for point clouds only."""

    path: Path  # of a splat of any format, of the folder of a run, or of a point cloud, .ply
    # axes of a file that does not name them: rdf (y down, as most splats), y-up, z-up, unity or world; none: as usual
    frame: Frame | None = None
    # leave out or mend Gaussians of a splat that are NaN, infinite or without a rotation; without it they are refused
    clean: bool = False
    # points more than this many times as far from the middle as nine tenths of all are left out; none: all stay
    reach: float | None = bounded(5.0, low=1)

    def create(self, prompt: str, generator: torch.Generator, device: torch.device | str = "cpu") -> Gaussians:
        """Return the Gaussians of the file in our axes, those of a splat as they are; the prompt is ignored.

        Notices tell of axes that are assumed, of what is left out or mended, and of colours that are scaled or not
        read.

        Raises:
            BadFile: the file is broken, some of a splat is not sound and ``clean`` is not set, or a point cloud has
                fewer than four points or no extent.
        """
        if not is_ply(self.path):
            return open_splat(self.path).resolve(self.frame, "--init.frame", self.clean)
        vertices = read_vertices(self.path)
        columns = vertices.columns
        if OF_A_SPLAT & columns.keys():
            return content_of(vertices).resolve(self.frame, "--init.frame", self.clean)
        matrix = frame_matrix(vertices.axes(self.frame))
        points = (self._places(columns) @ matrix).float()
        close = torch.from_numpy(self._choose_near(points.numpy()))
        cloud = PointCloud(points[close], _read_colors(columns, self.path)[close])
        return self.dress(cloud, generator, str(self.path))

    def _places(self, columns: Columns) -> Float[Tensor, "N 3"]:
        """Positions in float64, centred on their middle if they are so far from the origin that float32 blurs them."""
        plain = stacked(columns, POSITION, self.path).double()
        exact = torch.from_numpy(np.stack([columns[name].astype(np.float64) for name in POSITION], axis=1))
        middle = exact.median(dim=0).values
        far = middle.abs().max() > FAR * (exact - middle).abs().amax(dim=1).median()
        return exact - middle if far and self.radius is not None else plain

    def _choose_near(self, points: Float[np.ndarray, "N 3"]) -> Bool[np.ndarray, "N"]:
        """Return which points are taken; a Notice counts the others."""
        close = np.ones(len(points), dtype=bool) if self.reach is None else near(points.astype(np.float64), self.reach)
        if not close.all():
            tell(
                f"{self.path}: {(~close).sum():,} of {len(points):,} points are left out: they lie more than "
                f"{self.reach:g} times as far from the middle as nine tenths of all; --init.reach none keeps them"
            )
        return close


def _read_colors(columns: Columns, path: Path) -> Float[Tensor, "N 3"]:
    """Return colours in 0..1, whatever their scale in the file; grey if there are none, with a Notice of odd names."""
    lower = {name.lower(): name for name in reversed(list(columns))}
    for names in COLORS:
        if set(names) <= lower.keys():
            return scale_colors(columns, [lower[name] for name in names], path)
    if odd := [name for name in columns if LIKE_A_COLOR.search(name)]:
        supported = ", ".join(" ".join(names) for names in COLORS)
        tell(f"{path}: all points are grey: {', '.join(odd)} are not read as colours, only {supported} are")
    return torch.full((len(columns["x"]), 3), 0.5)
