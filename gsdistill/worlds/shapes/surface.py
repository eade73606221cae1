"""Random points on the surfaces of the world's objects, and the part that is nearest to a point."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gsdistill.disk.compiled import compiled
from gsdistill.worlds.shapes.solids import BOUNDING_RADIUS, distances, normals, part_distance

__all__ = ["nearest_parts", "sample_surface"]

_SHELL = 0.02  # points within this distance of the surface are drawn, then moved onto it


def sample_surface(parts: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return ``count`` points [count, 3] on the surface of the union of ``parts`` [P, 3] (see world.py).

    Uniform points of a thin shell around the surface are moved onto it along the gradient of the distance. They are
    uniform by area, except in a band of a few hundredths along edges.
    """
    accepted, total = [], 0
    while total < count:
        points = rng.uniform(-BOUNDING_RADIUS - _SHELL, BOUNDING_RADIUS + _SHELL, (1 << 16, 3))
        points = points[np.abs(distances(parts, points)) < _SHELL]
        for _ in range(4):  # one step suffices, except where the distance is only a bound or the gradient jumps
            points = points - distances(parts, points)[:, None] * normals(parts, points)
        accepted.append(points[np.abs(distances(parts, points)) < 1e-6])
        total += len(accepted[-1])
    return np.concatenate(accepted)[:count]


@compiled(fast=False)
def nearest_parts(parts: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index [M] of the part of ``parts`` [P, 3] whose surface or inside is nearest to each of ``points`` [M, 3]."""
    out = np.empty(points.shape[0], dtype=np.int64)
    for i in range(points.shape[0]):
        best = 1e30
        for p in range(parts.shape[0]):
            d = part_distance(parts[p], points[i, 0], points[i, 1], points[i, 2])
            if d < best:
                best, out[i] = d, p
    return out
