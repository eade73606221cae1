"""Triangles that lie in one plane, overlap and differ in colour: which of them a picture shows is left to rounding.

They are moved apart, none is dropped: two that look to opposite sides, as the outside and the lining of a shell, each
to its own side, so that the lining is under the outside from there and is seen from within; of two that look to the
same side, the one whose colour covers less of the plane is moved out, for a label lies on a box.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from paint import areas

from gsdistill.disk.compiled import compiled

__all__ = ["moved_apart", "overlaps"]

STEP = 1e-3  # of the longest side: how far they are moved
CELL = 0.01  # of a grid of normals, in which one cell is one direction
APART = 1e-4  # of the longest side: planes that are nearer are the same
DIFFERENT = 0.01  # of a colour's channel in 0..1; colours that are alike may be of parts that a word repaints or not
DEEP = 1e-3  # of the longest side: triangles that overlap by less along any direction only touch
_SIDE = np.array([0.577, 0.683, 0.448])  # both normals of a plane are turned to this side


def moved_apart(corners: NDArray[np.float64], colors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Triangles [F, 3, 3] with colours [F, 3] in 0..1, those that :func:`overlaps` finds moved along their normals."""
    pairs, planes = overlaps(corners, colors)
    if not len(pairs):
        return corners
    normals = _normals(corners)
    opposite = (normals[pairs[:, 0]] * normals[pairs[:, 1]]).sum(1) < 0
    steps = np.zeros(len(corners))
    steps[pairs[opposite]] = 1
    _, shade = np.unique(np.column_stack([planes, np.round(colors * 16)]), axis=0, return_inverse=True)
    covered = np.bincount(shade.reshape(-1), areas(corners))[shade.reshape(-1)]
    stacked = pairs[~opposite]
    lower = covered[stacked[:, 0]] >= covered[stacked[:, 1]]
    stacked = np.where(lower[:, None], stacked, stacked[:, ::-1])  # the lower one first
    for low, high in stacked[np.argsort(-covered[stacked[:, 0]], kind="stable")]:
        steps[high] = max(steps[high], steps[low] + 1)
    return corners + (steps[:, None] * normals * STEP * _longest(corners))[:, None]


def overlaps(corners: NDArray[np.float64], colors: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs [P, 2] of such triangles, and the number of each triangle's plane [F]."""
    longest, normals = _longest(corners), _normals(corners)
    normals *= np.where(normals @ _SIDE < 0, -1.0, 1.0)[:, None]
    heights = np.einsum("fd,fd->f", normals, corners.mean(1)) / longest
    directions = np.unique(np.round(normals / CELL), axis=0, return_inverse=True)[1].reshape(-1)
    order = np.lexsort([heights, directions])
    new = (np.diff(directions[order]) != 0) | (np.diff(heights[order]) > APART)
    planes = np.empty(len(corners), np.int64)
    planes[order] = np.cumsum(np.r_[0, new])
    flat = _flat(corners / longest, normals, planes)
    return order[_pairs(flat[order], colors[order], heights[order], planes[order])], planes


def _flat(corners: NDArray[np.float64], normals: NDArray[np.float64], planes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Triangles [F, 3, 2] in two directions that span the plane of each."""
    normals = normals[np.unique(planes, return_index=True)[1]]  # one of each plane
    first = np.cross(normals, np.eye(3)[np.abs(normals).argmin(1)])
    first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-30)
    spanned = np.stack([first, np.cross(normals, first)], -1)
    return np.einsum("fkd,fde->fke", corners, spanned[planes])


def _longest(corners: NDArray[np.float64]) -> float:
    return float(np.ptp(corners.reshape(-1, 3), 0).max())


def _normals(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-30)


@compiled(fast=False)
def _pairs(
    flat: NDArray[np.float64], colors: NDArray[np.float64], heights: NDArray[np.float64], planes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Numbers of pairs; triangles [F, 3, 2] in their planes are sorted by plane, then by height."""
    found, size = np.empty((64, 2), np.int64), 0
    for i in range(flat.shape[0]):
        for j in range(i + 1, flat.shape[0]):
            if planes[j] != planes[i] or heights[j] - heights[i] > APART:
                break
            difference = 0.0
            for channel in range(3):
                difference = max(difference, abs(colors[i, channel] - colors[j, channel]))
            if difference > DIFFERENT and _overlap(flat[i], flat[j]):
                if size == found.shape[0]:
                    more = np.empty((2 * size, 2), np.int64)
                    more[:size] = found
                    found = more
                found[size, 0], found[size, 1] = i, j
                size += 1
    return found[:size]


@compiled(fast=False)
def _overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether no edge of either triangle [3, 2] separates them."""
    for edges in (one, other):
        for k in range(3):
            x, y = edges[k, 1] - edges[(k + 1) % 3, 1], edges[(k + 1) % 3, 0] - edges[k, 0]
            length = max(np.sqrt(x * x + y * y), 1e-30)
            a_low, a_high, b_low, b_high = np.inf, -np.inf, np.inf, -np.inf
            for corner in range(3):
                a = (one[corner, 0] * x + one[corner, 1] * y) / length
                b = (other[corner, 0] * x + other[corner, 1] * y) / length
                a_low, a_high, b_low, b_high = min(a_low, a), max(a_high, a), min(b_low, b), max(b_high, b)
            if min(a_high, b_high) - max(a_low, b_low) < DEEP:
                return False
    return True
