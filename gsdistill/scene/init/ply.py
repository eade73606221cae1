"""A PLY file to start from: a splat as it is, or a point cloud with a Gaussian on every point.

A point cloud has the vertex properties x y z, and for colours red green blue, r g b or diffuse_red diffuse_green
diffuse_blue, in capitals too; without them it is grey. A few points far away would leave all others in one place, once
the whole is scaled into the ball: they are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gsdistill.config import bounded
from gsdistill.errors import BadFile, tell
from gsdistill.frames import Frame
from gsdistill.scene.clouds import near
from gsdistill.scene.init.base import CloudSettings, Initialiser
from gsdistill.scene.ply import POSITION, Columns, gaussians_from, read_vertices, stacked
from gsdistill.scene.turn import frame_matrix
from gsdistill.structs import Gaussians, PointCloud

__all__ = ["Ply"]

COLORS = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))
TOPS = (1.0, 255.0, 65535.0)  # to which programs let colours go, whatever their type
FAR = 1000  # times the median distance from the middle
LIKE_A_COLOR = re.compile(r"red|green|blue|colou?r|rgb|intensity|gr[ae]y|albedo", re.IGNORECASE)
OF_A_SPLAT = {"f_dc_0", "opacity", "scale_0", "rot_0"}


@dataclass(frozen=True, kw_only=True)
class Ply(CloudSettings, Initialiser):
    """Settings of the PLY initialiser; all but ``path`` and ``frame`` are for point clouds only."""

    path: Path  # of a splat in the INRIA layout, or of a point cloud
    # axes of a file that does not name them: rdf (y down, as most splats), y-up, z-up, unity or world; none: world
    frame: Frame | None = None
    # points more than so many times as far from the middle as nine tenths of all are left out; none: all stay
    reach: float | None = bounded(5.0, low=1)

    def create(self, prompt: str, generator: torch.Generator, device: torch.device | str = "cpu") -> Gaussians:
        """Return the Gaussians of the file, a splat's as they are, in our axes; the prompt plays no part.

        Warns with a Notice of points that are left out, and of colours that are scaled or not read.

        Raises:
            BadFile: the file is broken, or a point cloud has fewer than four points or no extent.
        """
        vertices = read_vertices(self.path)
        columns = vertices.columns
        if OF_A_SPLAT & columns.keys():
            return gaussians_from(vertices, self.frame)
        matrix = frame_matrix(vertices.axes(self.frame))
        points = (self._places(columns) @ matrix).float()
        kept = torch.from_numpy(self._near(points.numpy()))
        cloud = PointCloud(points[kept], _colors(columns, self.path)[kept])
        return self.dress(cloud, generator, str(self.path))

    def _places(self, columns: Columns) -> Float[Tensor, "N 3"]:
        """Positions in float64; those far from the origin, where float32 would blur them, about their middle."""
        plain = stacked(columns, POSITION, self.path).double()
        exact = torch.from_numpy(np.stack([columns[name].astype(np.float64) for name in POSITION], axis=1))
        middle = exact.median(dim=0).values
        far = middle.abs().max() > FAR * (exact - middle).abs().amax(dim=1).median()
        return exact - middle if far and self.radius is not None else plain

    def _near(self, points: Float[np.ndarray, "N 3"]) -> Bool[np.ndarray, "N"]:
        """Which points are taken; tells of the others."""
        kept = np.ones(len(points), dtype=bool) if self.reach is None else near(points.astype(np.float64), self.reach)
        if not kept.all():
            tell(
                f"{self.path}: {(~kept).sum():,} of {len(points):,} points are left out: they lie more than "
                f"{self.reach:g} times as far from the middle as nine tenths of all; --init.reach none keeps them"
            )
        return kept


def _colors(columns: Columns, path: Path) -> Float[Tensor, "N 3"]:
    """Return colours in 0..1, whatever they go up to in the file; grey where there are none."""
    lower = {name.lower(): name for name in reversed(list(columns))}
    for names in COLORS:
        if set(names) <= lower.keys():
            return _scaled(columns, [lower[name] for name in names], path)
    if odd := [name for name in columns if LIKE_A_COLOR.search(name)]:
        read = ", ".join(" ".join(names) for names in COLORS)
        tell(f"{path}: all points are grey: {', '.join(odd)} are not read as colours, only {read} are")
    return torch.full((len(columns["x"]), 3), 0.5)


def _scaled(columns: Columns, names: list[str], path: Path) -> Float[Tensor, "N 3"]:
    """Divide whole numbers by the largest of their type, and others by 1, or by what they go up to in fact.

    Numbers of more than a byte that stay below 256 are bytes all the same, and so are fractions above 2.
    """
    colors, kind = stacked(columns, names, path), columns[names[0]].dtype
    whole, most = bool((colors == colors.round()).all()), float(colors.max())
    top = float(np.iinfo(kind).max) if np.issubdtype(kind, np.integer) else 1.0
    found = next((usual for usual in TOPS if most <= usual), top)
    if most > 1 and (found < top or (found > top == 1.0 and (whole or most > 2))):
        tell(f"{path}: its colours {' '.join(names)} go up to {most:g} and are divided by {found:g}")
        top = found
    if float(colors.min()) < 0 or most > top:
        raise BadFile(
            f"{path}: colours {' '.join(names)} of type {kind} must lie in 0..1, 0..255 or 0..65535; they go from "
            f"{float(colors.min()):g} to {most:g}"
        )
    return colors / top
