"""Triangles that lie in one plane, overlap and differ in colour: which of them a picture shows is left to rounding.

They are moved apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gsdistill.disk.compiled import compiled

__all__ = ["overlaps"]

NORMALS = 0.01  # a grid's step; normals in one cell are the same
APART = 1e-4  # of the longest side: planes that are nearer are the same
DIFFERENT = 0.08  # difference of a colour's channel, of 1, that one sees
DEEP = 1e-3  # of the longest side: triangles that overlap by less along any direction only touch


def overlaps(corners: NDArray[np.float64], colors: NDArray[np.float64]) -> NDArray[np.int64]:
    """Pairs [P, 2] of such triangles, of [F, 3, 3] with colours [F, 3] in 0..1."""
    longest = np.ptp(corners.reshape(-1, 3), 0).max()
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    normals *= np.where(normals @ [0.577, 0.683, 0.448] < 0, -1.0, 1.0)[:, None]
    heights = np.einsum("fd,fd->f", normals, corners.mean(1)) / longest
    cells = np.unique(np.round(normals / NORMALS).astype(np.int64), axis=0, return_inverse=True)[1].reshape(-1)
    order = np.lexsort([heights, cells])
    pairs = _pairs(corners[order] / longest, colors[order], normals[order], heights[order], cells[order])
    return order[pairs]


@compiled(fast=False)
def _pairs(
    corners: NDArray[np.float64],
    colors: NDArray[np.float64],
    normals: NDArray[np.float64],
    heights: NDArray[np.float64],
    cells: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Numbers of pairs; triangles are sorted by cell, then by height."""
    count = corners.shape[0]
    found = np.empty((64, 2), np.int64)
    size = 0
    for i in range(count):
        for j in range(i + 1, count):
            if cells[j] != cells[i] or heights[j] - heights[i] > APART:
                break
            if np.abs(colors[i] - colors[j]).max() > DIFFERENT and _overlap(corners[i], corners[j], normals[i]):
                if size == found.shape[0]:
                    found = np.concatenate((found, np.empty_like(found)))
                found[size, 0], found[size, 1] = i, j
                size += 1
    return found[:size]


@compiled(fast=False)
def _overlap(one: NDArray[np.float64], other: NDArray[np.float64], normal: NDArray[np.float64]) -> bool:
    """Whether no edge of either triangle separates them."""
    for turn in range(2):
        edges = one if turn == 0 else other
        for k in range(3):
            across = np.cross(normal, edges[(k + 1) % 3] - edges[k])
            across /= max(np.sqrt((across**2).sum()), 1e-30)
            a, b = one @ across, other @ across
            if min(a.max(), b.max()) - max(a.min(), b.min()) < DEEP:
                return False
    return True
