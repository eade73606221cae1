"""A PLY file to start from: a splat as it is, or a point cloud with a Gaussian on every point.

A point cloud (x y z, and red green blue or r g b) is centred on its bounding box and scaled so that its farthest point
lies at ``radius``; the standard deviation at a point is ``scale`` times its mean distance to the three nearest others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.config import bounded
from gsdistill.errors import BadFile
from gsdistill.scene.init.base import Initialiser, round_gaussians
from gsdistill.scene.ply import POSITION, Columns, gaussians_from, read_columns, stacked
from gsdistill.structs import Gaussians

__all__ = ["Ply"]

NEIGHBOURS = 3
COLORS = (("red", "green", "blue"), ("r", "g", "b"))
OF_A_SPLAT = {"f_dc_0", "opacity", "scale_0", "rot_0"}


@dataclass(frozen=True)
class Ply(Initialiser):
    """Settings of the PLY initialiser; all but ``path`` are for point clouds only."""

    path: Path  # of a splat in the INRIA layout, or of a point cloud
    radius: float = bounded(0.9, above=0, high=1)  # distance of the farthest point from the origin, world units
    opacity: float = bounded(0.2, above=0, below=1)  # of each Gaussian, a probability
    scale: float = bounded(1.0, above=0)  # standard deviation over the mean distance to the three nearest points
    limit: int = bounded(50_000, low=4)  # a larger cloud is thinned to this many random points
    sh_degree: int = bounded(0, low=0, high=3)  # degree of the view-dependent colour, which starts at zero

    def create(self, prompt: str, generator: torch.Generator) -> Gaussians:
        """Return the Gaussians of the file, a splat's untouched; the prompt plays no part.

        Raises:
            BadFile: the file is broken, or a point cloud has fewer than four points or no extent.
        """
        columns = read_columns(self.path)
        if OF_A_SPLAT & columns.keys():
            return gaussians_from(columns, self.path)
        points, colors = stacked(columns, POSITION, self.path), _colors(columns, self.path)
        if len(points) > self.limit:
            kept = torch.randperm(len(points), generator=generator)[: self.limit]
            points, colors = points[kept], colors[kept]
        points = _in_ball(points, self.radius, self.path)
        deviations = self.scale * _mean_distance(points).clamp_min(
            1e-4 * self.radius
        )  # duplicates are at distance zero
        return round_gaussians(points, deviations, self.opacity, colors, self.sh_degree)


def _in_ball(points: Float[Tensor, "N 3"], radius: float, path: Path) -> Float[Tensor, "N 3"]:
    """Return the points centred on their bounding box and scaled into the ball of ``radius``."""
    centred = points.double() - 0.5 * (points.double().amin(dim=0) + points.double().amax(dim=0))
    extent = centred.norm(dim=-1).max()
    if len(points) <= NEIGHBOURS or extent == 0:
        raise BadFile(f"{path}: a point cloud needs at least four points, not all in one place")
    return (centred * (radius / extent)).float()


def _mean_distance(points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
    """Return each point's mean distance to its three nearest others, by brute force over chunks of 16 million pairs."""
    means = []
    for chunk in points.split(max(1, 2**24 // len(points))):
        # the matrix-product shortcut of cdist cancels where points lie close, which is exactly here
        distances = torch.cdist(chunk, points, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distances.topk(NEIGHBOURS + 1, largest=False).values  # the first is the point itself
        means.append(nearest[:, 1:].mean(dim=-1))
    return torch.cat(means)


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
