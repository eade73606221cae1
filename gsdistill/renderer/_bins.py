"""Kernels that tell every tile of 8 x 8 pixels which splats it holds, nearest first.

Binning is exact: a tile holds a splat if and only if the ellipse where alpha reaches 1/255 touches the box of its pixel
centres. Within a row of tiles an ellipse is convex, so the tiles it touches are those between its leftmost and its
rightmost point there. ``starts`` numbers the pairs of splat and tile by splat; ``ids`` and ``slots`` list them by tile,
nearest first, ``slots`` pointing back: a tile writes its gradient sums where the splat's owner finds them together.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numba import prange

from gsdistill.compiled import compiled

SIDE = 8

Array: TypeAlias = np.ndarray


@compiled(fast=False)
def band_span(splat: Array, top: int, bottom: int, width: int) -> tuple[int, int]:
    """First and last pixel column that the ellipse touches in the pixel rows top..bottom; first > last where none."""
    k, ex, ey = float(splat[3]), float(splat[10]), float(splat[11])
    low, high = max(top + 0.5 - splat[1], -ey), min(bottom + 0.5 - splat[1], ey)
    if low > high:
        return 1, 0
    ratio = float(splat[4]) / splat[2]
    peak = k * ey * ey / ex  # dy of the rightmost point; the leftmost mirrors it
    at_right, at_left = min(max(peak, low), high), min(max(-peak, low), high)
    right = splat[0] + k * at_right + math.sqrt(max((ey * ey - at_right * at_right) * ratio, 0.0))
    left = splat[0] + k * at_left - math.sqrt(max((ey * ey - at_left * at_left) * ratio, 0.0))
    first = math.ceil(min(max(left - 0.52, -1.0), width + 1.0))
    last = math.floor(min(max(right - 0.48, -1.0), width + 1.0))
    return max(int(first), 0), min(int(last), width - 1)


@compiled(fast=False)
def touched_tiles(splat: Array, width: int, height: int, out: Array) -> int:
    """Number of tiles that the splat touches; their numbers are written to ``out`` if it is long enough."""
    columns, count = (width + SIDE - 1) // SIDE, 0
    first = math.ceil(min(max(splat[1] - splat[11] - 0.52, -1.0), height + 1.0))
    last = math.floor(min(max(splat[1] + splat[11] - 0.48, -1.0), height + 1.0))
    first, last = max(int(first), 0), min(int(last), height - 1)
    if first > last:
        return 0
    for band in range(first // SIDE, last // SIDE + 1):
        top, bottom = max(first, band * SIDE), min(last, band * SIDE + SIDE - 1)
        left, right = band_span(splat, top, bottom, width)
        if left <= right:
            for column in range(left // SIDE, right // SIDE + 1):
                if count < len(out):
                    out[count] = band * columns + column
                count += 1
    return count


@compiled()
def sort_by_depth(bits: Array, order: Array, spare: Array) -> None:
    """Sort the indices in ``order`` stably by the bit patterns of their depths, positive floats: three radix passes."""
    n = len(order)
    for shift in (0, 11, 22):
        counts = np.zeros(2049, np.int64)
        for i in range(n):
            counts[((bits[order[i]] >> np.uint32(shift)) & np.uint32(2047)) + 1] += 1
        for i in range(2048):
            counts[i + 1] += counts[i]
        for i in range(n):
            digit = (bits[order[i]] >> np.uint32(shift)) & np.uint32(2047)
            spare[counts[digit]] = order[i]
            counts[digit] += 1
        order[:] = spare[:n]


@compiled(parallel=True)
def count_tiles(splats: Array, radii: Array, width: int, height: int, starts: Array) -> None:
    """Fill ``starts`` [B N + 1]: where the pairs of every splat begin."""
    nowhere = np.empty(0, np.int32)
    starts[0] = 0
    for i in prange(len(splats)):
        starts[i + 1] = touched_tiles(splats[i], width, height, nowhere) if radii[i] > 0 else 0
    for i in range(len(splats)):
        starts[i + 1] += starts[i]


@compiled(parallel=True)
def bin_tiles(
    splats: Array, bits: Array, views: int, groups: int, width: int, height: int,
    starts: Array, tiles: Array, bounds: Array, ids: Array, slots: Array,
) -> None:  # fmt: skip
    """Fill ``bounds`` [B tiles + 1], ``ids`` and ``slots``: what every tile holds, nearest first.

    ``tiles`` is scratch as long as ``ids``; ``groups`` > 1 shares out one view's tiles to several threads.
    """
    N = len(splats) // views
    per_view = (len(bounds) - 1) // views
    orders = np.empty((views, 2, N), np.int32)
    lengths = np.zeros(views, np.int64)
    for i in prange(len(splats)):
        touched_tiles(splats[i], width, height, tiles[starts[i] : starts[i + 1]])
    for b in prange(views):
        count = 0
        for n in range(N):
            if starts[b * N + n + 1] > starts[b * N + n]:
                orders[b, 0, count] = n
                count += 1
        lengths[b] = count
        sort_by_depth(bits[b * N : b * N + N], orders[b, 0, :count], orders[b, 1])
        held = np.zeros(per_view + 1, np.int64)
        held[0] = starts[b * N]
        for pair in range(starts[b * N], starts[b * N + N]):
            held[tiles[pair] + 1] += 1
        for tile in range(per_view):
            held[tile + 1] += held[tile]
            bounds[b * per_view + tile + 1] = held[tile + 1]
    bounds[0] = 0
    for task in prange(views * groups):
        b, group = task // groups, task % groups
        cursor = bounds[b * per_view : b * per_view + per_view].copy()
        for rank in range(lengths[b]):
            i = b * N + orders[b, 0, rank]
            for pair in range(starts[i], starts[i + 1]):
                tile = tiles[pair]
                if tile % groups == group:
                    ids[cursor[tile]] = i
                    slots[cursor[tile]] = pair
                    cursor[tile] += 1
