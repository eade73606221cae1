"""Which triangle of a mesh each ray of a camera meets first: a z-buffer on the processor, and means over its pixels.

A corner (x, y, z) in the camera's axes falls on the column K_00 x / z + K_02 and the row K_11 y / z + K_12 of the
picture. On the screen 1 / z is affine over a triangle, so the nearest triangle is the one of the largest 1 / z. Both
sides of a triangle are seen, its edges belong to it, and one with a corner nearer than 0.01 is left out. A pixel has a
square grid of rays, ``side`` along each side, in the middles of equal squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gsdistill.disk.compiled import compiled

__all__ = ["NEAR", "Hits", "cover", "means"]

NEAR = 0.01
_SLACK = 1e-9  # rays: what rounding may take from an edge that goes through a ray


@dataclass(frozen=True)
class Hits:
    """What the rays of one picture meet, S rays along each side of a pixel: arrays of H S rows and W S columns."""

    faces: NDArray[np.int32]  # the number of the nearest triangle; -1 where there is none
    nearness: NDArray[np.float64]  # 1 / z along the camera's axis; 0 where there is none


def cover(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int32],
    viewmat: NDArray[np.float64],
    k: NDArray[np.float64],
    size: tuple[int, int],
    side: int,
) -> Hits:
    """Find the nearest triangle on each ray.

    Args:
        vertices: [V, 3], world axes.
        faces: [F, 3], numbers of vertices.
        viewmat: [4, 4], world to camera.
        k: [3, 3], the camera's intrinsics in pixels.
        size: height and width in pixels.
        side: rays along each side of a pixel, 1 or more.
    """
    rows, columns = size[0] * side, size[1] * side
    hits = Hits(np.full((rows, columns), -1, np.int32), np.zeros((rows, columns)))
    local = vertices @ viewmat[:3, :3].T + viewmat[:3, 3]
    lens = side * np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]]) - [0.0, 0.0, 0.5, 0.5]  # ray 0 is at 0
    _cover(local, faces, lens, hits.faces, hits.nearness)
    return hits


def means(hits: Hits, values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """The mean over a pixel's rays [H, W, C] of what belongs to the triangle that each meets, ``values`` [F, C].

    A ray that meets nothing counts as zero.
    """
    rows, columns = hits.faces.shape
    out = np.zeros((rows // side, columns // side, values.shape[1]), np.float32)
    _add(hits.faces, values, side, out)
    out /= side * side
    return out


@compiled(fast=False)
def _cover(
    local: NDArray[np.float64],
    faces: NDArray[np.int32],
    lens: NDArray[np.float64],
    nearest: NDArray[np.int32],
    nearness: NDArray[np.float64],
) -> None:
    """Note the nearest triangle at each ray, row by row of each triangle."""
    rows, columns = nearest.shape
    screen = np.empty((local.shape[0], 3))
    for i in range(local.shape[0]):
        w = 1.0 / local[i, 2]
        screen[i, 0] = local[i, 0] * w * lens[0] + lens[2]
        screen[i, 1] = local[i, 1] * w * lens[1] + lens[3]
        screen[i, 2] = w
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if not min(local[a, 2], local[b, 2], local[c, 2]) >= NEAR:
            continue
        x0, y0, w0 = screen[a, 0], screen[a, 1], screen[a, 2]
        x1, y1, w1 = screen[b, 0], screen[b, 1], screen[b, 2]
        x2, y2, w2 = screen[c, 0], screen[c, 1], screen[c, 2]
        low, high = max(0.0, np.ceil(min(y0, y1, y2) - _SLACK)), min(rows - 1.0, np.floor(max(y0, y1, y2) + _SLACK))
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0.0 or not low <= high or max(x0, x1, x2) < 0.0 or min(x0, x1, x2) > columns - 1.0:
            continue
        right = ((w1 - w0) * (y2 - y0) - (w2 - w0) * (y1 - y0)) / area  # of 1 / z, a column on
        down = ((x1 - x0) * (w2 - w0) - (x2 - x0) * (w1 - w0)) / area
        for row in range(int(low), int(high) + 1):
            left, end = np.inf, -np.inf
            for xa, ya, xb, yb in ((x0, y0, x1, y1), (x1, y1, x2, y2), (x2, y2, x0, y0)):
                if min(ya, yb) - _SLACK <= row <= max(ya, yb) + _SLACK:
                    if ya == yb:
                        left, end = min(left, xa, xb), max(end, xa, xb)
                    else:
                        x = xa + min(1.0, max(0.0, (row - ya) / (yb - ya))) * (xb - xa)
                        left, end = min(left, x), max(end, x)
            first = int(max(0.0, np.ceil(left - _SLACK)))
            w = w0 + right * (first - x0) + down * (row - y0)
            for column in range(first, int(min(columns - 1.0, np.floor(end + _SLACK))) + 1):
                if w > nearness[row, column]:
                    nearest[row, column], nearness[row, column] = f, w
                w += right


@compiled(fast=False)
def _add(nearest: NDArray[np.int32], values: NDArray[np.float32], side: int, out: NDArray[np.float32]) -> None:
    """Add to each pixel what its rays meet."""
    for row in range(nearest.shape[0]):
        for column in range(nearest.shape[1]):
            f = nearest[row, column]
            if f >= 0:
                for c in range(values.shape[1]):
                    out[row // side, column // side, c] += values[f, c]
