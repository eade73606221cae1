"""Where things stand: one alone as it is, two with the upper one on the lower one's highest level that can carry it.

A level is a height at which something faces upwards and is seen from above. It can carry if a circle of radius 0.22
fits into it; the upper thing stands in the middle of such a circle, near the axis. So a bear sits on the seat of a
chair, not on its back. Where no level is that large, as on a ball, the largest one is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gsdistill.renderer.meshes import cover

__all__ = ["Place", "extremes", "places", "support"]

_TOP, _BOTTOM = 0.5, 0.62  # sizes in a stack
_SINK = 0.02  # the upper thing sinks in a little, so that no light falls through
_RADIUS = 0.9  # of the ball that a stack fills
_CIRCLE = 0.22
_CELL = 0.02  # of the map of heights
_ALIKE = 0.03  # heights of one level
_FAR = 1000.0  # from where the map is seen, so that its rays are nearly parallel
_DIRECTIONS = np.array([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if x or y or z], float)


@dataclass(frozen=True)
class Place:
    """Where a thing stands: its points p are moved to ``scale`` p + ``offset``."""

    scale: float
    offset: NDArray[np.float64]  # [3]


def extremes(vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """The farthest points in 26 directions [26, 3]: an outline, which is enough to centre and scale by."""
    return vertices[(vertices @ _DIRECTIONS.T).argmax(0)]


def support(vertices: NDArray[np.float64], faces: NDArray[np.int32]) -> NDArray[np.float64]:
    """The point [3] of a mesh that something stands on best."""
    from scipy.ndimage import distance_transform_edt

    heights = _heights(vertices, faces)
    middles = (np.arange(len(heights)) + 0.5) * _CELL - 1.0
    away = np.hypot(*np.meshgrid(middles, middles))
    largest, place = 0.0, np.array([0.0, 0.0, vertices[:, 2].max()])
    for level in np.unique(np.round(heights[heights > -np.inf] / _CELL))[::-1] * _CELL:
        flat = np.abs(heights - level) <= _ALIKE
        free = np.asarray(distance_transform_edt(np.pad(flat, 1)))[1:-1, 1:-1] * _CELL
        if free.max() > largest:
            largest = free.max()
            row, column = np.unravel_index(np.where(free > 0.9 * largest, away, np.inf).argmin(), free.shape)
            place = np.array([middles[column], middles[row], heights[row, column]])
        if largest >= _CIRCLE:
            break
    return place


def places(outlines: list[NDArray[np.float64]], standing: NDArray[np.float64] | None) -> list[Place]:
    """Where the things with these ``extremes`` stand, the upper one first, on the lower one's ``support``."""
    if standing is None:
        return [Place(1.0, np.zeros(3))]
    top, bottom = outlines
    offset = _BOTTOM * standing - [0.0, 0.0, _SINK + _TOP * top[:, 2].min()]
    points = np.concatenate([_TOP * top + offset, _BOTTOM * bottom])
    centre = np.array([0.0, 0.0, (points[:, 2].max() + points[:, 2].min()) / 2])
    size = _RADIUS / np.linalg.norm(points - centre, axis=1).max()
    return [Place(_TOP * size, size * (offset - centre)), Place(_BOTTOM * size, -size * centre)]


def _heights(vertices: NDArray[np.float64], faces: NDArray[np.int32]) -> NDArray[np.float64]:
    """How high the mesh is over each cell of the square -1..1, rows along y, seen from above; -inf where nothing is."""
    cells = round(2 / _CELL)
    view = np.diag([1.0, 1.0, -1.0, 1.0])  # looks down; mirrored, so that rows go along +y
    view[2, 3] = _FAR
    k = np.array([[_FAR * cells / 2, 0, cells / 2], [0, _FAR * cells / 2, cells / 2], [0, 0, 1.0]])
    hits = cover(vertices, faces, view, k, (cells, cells), 1)
    return np.where(hits.faces >= 0, _FAR - 1 / np.where(hits.faces >= 0, hits.nearness, 1.0), -np.inf)
