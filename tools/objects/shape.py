"""The convention of the meshes: +z up, front +x, bounding box centred, farthest vertex at 0.9, few triangles."""

from __future__ import annotations

from typing import Any

import fast_simplification
import numpy as np
from numpy.typing import NDArray
from paint import areas
from scipy.spatial import KDTree

__all__ = ["MOST", "decimated", "placed", "welded"]

RADIUS = 0.9
MOST, GOAL = 6000, 5000  # a mesh of more triangles than MOST is brought to about GOAL
STEPS = 20_000  # corners in the same cell of a grid of so many along the longest side are one vertex
FLAT = 1e-9  # a triangle with less than this share of the longest side's square is left out
_POINTS = 60_000  # random ones on the surface, beside the triangles' centres, that tell what colour is where

Mesh = tuple[
    NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]
]  # vertices [V, 3], faces [F, 3], colours [F, 3]


def placed(corners: NDArray[np.float64], turn: float, roll: float = 0.0) -> NDArray[np.float64]:
    """Triangles [F, 3, 3] of +y up and +z front in our axes, turned about y by ``roll``, then about z, in degrees."""
    corners = corners[..., [2, 0, 1]]
    for angle, (one, other) in ((roll, (2, 0)), (turn, (0, 1))):
        cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        a, b = corners[..., one], corners[..., other]
        corners = corners.copy()
        corners[..., one], corners[..., other] = cosine * a - sine * b, sine * a + cosine * b
    return corners


def welded(corners: NDArray[np.float64], colors: NDArray[np.float64]) -> Mesh:
    """One vertex for all corners at a place; triangles without an area, or with a corner that is no number, go."""
    sound = np.isfinite(corners).all((1, 2))
    corners, colors = corners[sound], colors[sound]
    longest = np.ptp(corners.reshape(-1, 3), 0).max()
    wide = areas(corners) > FLAT * longest**2
    corners, colors = corners[wide], colors[wide]
    points = corners.reshape(-1, 3)
    low, high = points.min(0), points.max(0)
    cells = np.round((points - (low + high) / 2) / longest * STEPS).astype(np.int64)
    _, first, which = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    faces = which.reshape(-1, 3)
    whole = _whole(faces)
    return points[first], faces[whole], colors[whole]


def decimated(mesh: Mesh) -> Mesh:
    """At most MOST triangles, with the colours of the nearest points of the mesh; unchanged where there are few."""
    vertices, faces, colors = mesh
    if len(faces) <= MOST:
        return mesh
    simplify: Any = fast_simplification.simplify  # its types do not know float32
    few, triangles = simplify(
        vertices.astype(np.float32), faces.astype(np.int32), target_reduction=1 - GOAL / len(faces)
    )
    if len(triangles) > 1.3 * GOAL:  # of many loose parts
        few, triangles = simplify(few, triangles, target_reduction=1 - GOAL / len(triangles), agg=10)
    corners = few[triangles].astype(np.float64)
    points = np.stack([0.8 * corners.mean(1) + 0.2 * end for end in (corners.mean(1), *np.moveaxis(corners, 1, 0))], 1)
    known, which = _scattered(vertices[faces])
    _, nearest = KDTree(known).query(points.reshape(-1, 3))
    shades = np.median(colors[which[nearest]].reshape(-1, 4, 3), axis=1)
    return _clustered((few.astype(np.float64), triangles.astype(np.int64), shades))


def _scattered(corners: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points on triangles, and the triangle of each: all centres, and random ones by area."""
    rng = np.random.default_rng(0)
    weights = areas(corners)
    which = rng.choice(len(corners), _POINTS, p=weights / weights.sum())
    points = np.einsum("pk,pkd->pd", rng.dirichlet((1, 1, 1), _POINTS), corners[which])
    return np.concatenate([corners.mean(1), points]), np.concatenate([np.arange(len(corners)), which])


def _clustered(mesh: Mesh) -> Mesh:
    """Merge the vertices in cells of a coarser and coarser grid until there are few triangles."""
    vertices, faces, colors = mesh
    cells = 160
    while len(faces) > MOST:
        places = np.round((mesh[0] - mesh[0].min(0)) / np.ptp(mesh[0], 0).max() * cells).astype(np.int64)
        _, which = np.unique(places, axis=0, return_inverse=True)
        which = which.reshape(-1)
        count = np.bincount(which)
        vertices = np.stack([np.bincount(which, mesh[0][:, axis]) / count for axis in range(3)], 1)
        whole = np.flatnonzero(_whole(which[mesh[1]]))
        _, first = np.unique(np.sort(which[mesh[1]][whole], 1), axis=0, return_index=True)
        faces, colors = which[mesh[1]][whole[first]], mesh[2][whole[first]]
        cells = cells * 4 // 5
    return vertices, faces, colors


def _whole(faces: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which faces have three different vertices."""
    a, b, c = faces.T
    return (a != b) & (b != c) & (c != a)


def centred(mesh: Mesh) -> Mesh:
    """Without vertices that no face has; the bounding box centred and the farthest vertex at 0.9."""
    used, faces = np.unique(mesh[1], return_inverse=True)
    vertices = mesh[0][used]
    vertices = vertices - (vertices.min(0) + vertices.max(0)) / 2
    return vertices * (RADIUS / np.linalg.norm(vertices, axis=1).max()), faces.reshape(-1, 3), mesh[2]
