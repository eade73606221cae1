"""Kernels that list the splats of every tile of 8 x 16 pixels, nearest first.

Binning is exact: a tile contains a splat if and only if the ellipse with alpha >= 1/255 touches the box of the tile's
pixel centres. An ellipse is convex, so in a row of tiles (a band) it touches all tiles from its leftmost to its
rightmost point there. This span is computed once and stored. A pair is one splat in one tile. Pairs are counted in two
orders: by splat, where those of splat i are starts[i]..starts[i + 1], and by tile, where those of tile t are
bounds[t]..bounds[t + 1], nearest first. ``ids`` holds the splat of each pair in the order by tile, and ``slots`` the
place in that order of each pair in the order by splat.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from gsdistill.disk.compiled import compiled

WIDE, TALL = 8, 16  # pixels of a tile

Array: TypeAlias = np.ndarray


@compiled(fast=False, inline=True)
def bands(splats: Array, i: int, height: int) -> tuple[int, int]:
    """The first and the last band that splat i touches; first > last if it touches none."""
    first = math.ceil(min(max(splats[i, 1] - splats[i, 11] - 0.52, -1.0), height + 1.0))
    last = math.floor(min(max(splats[i, 1] + splats[i, 11] - 0.48, -1.0), height + 1.0))
    first, last = max(int(first), 0), min(int(last), height - 1)
    return (first // TALL, last // TALL) if first <= last else (0, -1)


@compiled(inline=True)
def write_spans(splats: Array, i: int, first: int, last: int, width: int, height: int, columns: Array, at: int) -> int:
    """Write the first and last tile column in the bands first..last to columns[2 at:]; returns how many tiles."""
    x, y, hA, k, hE = (
        float(splats[i, 0]),
        float(splats[i, 1]),
        float(splats[i, 2]),
        float(splats[i, 3]),
        float(splats[i, 4]),
    )
    ex, ey = float(splats[i, 10]), float(splats[i, 11])
    ratio, peak = hE / hA, k * ey * ey / ex  # dy of the rightmost point; the leftmost mirrors it
    count = 0
    for band in range(first, last + 1):
        low = max(band * TALL + 0.48 - y, -ey)
        high = min(min(band * TALL + TALL, height) - 0.48 - y, ey)
        at_right, at_left = min(max(peak, low), high), min(max(-peak, low), high)
        right = x + k * at_right + math.sqrt(max((ey * ey - at_right * at_right) * ratio, 0.0))
        left = x + k * at_left - math.sqrt(max((ey * ey - at_left * at_left) * ratio, 0.0))
        start = math.ceil(min(max(left - 0.52, -1.0), width + 1.0))
        stop = math.floor(min(max(right - 0.48, -1.0), width + 1.0))
        start, stop = max(int(start), 0) // WIDE, min(int(stop), width - 1)
        stop = stop // WIDE if stop >= 0 else -1
        columns[2 * at], columns[2 * at + 1] = start, stop
        at += 1
        count += max(stop - start + 1, 0)
    return count


@compiled(fast=False)
def sort_by_depth(bits: Array, order: Array, spare: Array) -> None:
    """Sort ``order``, indices of splats, stably by depth: three radix passes over the bits of positive float32."""
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


@compiled(fast=False)
def tile_starts(splats: Array, band_starts: Array, spans: Array, start: int, height: int, columns: int) -> Array:
    """The first pair of every tile of one view, counted from ``start``; band_starts[i] is the first span of splat i."""
    rows = (height + TALL - 1) // TALL
    steps = np.zeros((rows, columns + 1), np.int64)
    for i in range(len(splats)):
        band = bands(splats, i, height)[0]
        for j in range(band_starts[i], band_starts[i + 1]):
            if spans[2 * j] <= spans[2 * j + 1]:
                steps[band, spans[2 * j]] += 1
                steps[band, spans[2 * j + 1] + 1] -= 1
            band += 1
    begins = np.empty(rows * columns, np.int64)
    for band in range(rows):
        count = 0
        for column in range(columns):
            begins[band * columns + column] = start
            count += steps[band, column]
            start += count
    return begins


@compiled(fast=False)
def in_depth_order(splats: Array, starts: Array) -> Array:
    """Indices of the splats of one view that touch any tile, nearest first; starts[i] is the first pair of splat i."""
    bits, orders = splats[:, 9].copy().view(np.uint32), np.empty((2, len(splats)), np.int32)
    count = 0
    for i in range(len(splats)):
        if starts[i + 1] > starts[i]:
            orders[0, count] = i
            count += 1
    sort_by_depth(bits, orders[0, :count], orders[1])
    return orders[0, :count]


@compiled(fast=False)
def place(
    splats: Array, order: Array, offset: int, band_starts: Array, spans: Array, height: int, columns: int,
    group: int, groups: int, cursor: Array, starts: Array, ids: Array, slots: Array,
) -> None:  # fmt: skip
    """Write the pairs in the bands of one group (every groups-th) by ``order``, where ``cursor`` of their tile is."""
    for rank in range(len(order)):
        i = order[rank]
        band, pair = bands(splats, i, height)[0], starts[i]
        for j in range(band_starts[i], band_starts[i + 1]):
            start, stop = spans[2 * j], spans[2 * j + 1]
            if band % groups == group:
                for tile in range(band * columns + start, band * columns + stop + 1):
                    ids[cursor[tile]], slots[pair] = offset + i, cursor[tile]
                    cursor[tile] += 1
                    pair += 1
            else:
                pair += max(stop - start + 1, 0)
            band += 1


@compiled()
def find_spans(
    begin: int, end: int, splats: Array, width: int, height: int, band_starts: Array, spans: Array, counts: Array
) -> None:
    """Fill ``spans`` [2 x bands of all splats] and ``counts`` [B N], numbers of tiles, for the splats begin..end."""
    for i in range(begin, end):
        counts[i] = 0
        if band_starts[i + 1] > band_starts[i]:
            first, last = bands(splats, i, height)
            counts[i] = write_spans(splats, i, first, last, width, height, spans, band_starts[i])


@compiled()
def place_pairs(
    begin: int, end: int, groups: int, splats: Array, width: int, height: int, band_starts: Array, spans: Array,
    starts: Array, bounds: Array, ids: Array, slots: Array,
) -> None:  # fmt: skip
    """Fill ``bounds`` [B tiles], ``ids`` and ``slots`` [pairs] for the tasks begin..end, ``groups`` tasks a view."""
    columns = (width + WIDE - 1) // WIDE
    per_view = columns * ((height + TALL - 1) // TALL)
    N = len(splats) * per_view // len(bounds)
    for task in range(begin, end):
        b, group = task // groups, task % groups
        first, last = b * N, b * N + N
        here, pairs, marks = splats[first:last], starts[first : last + 1], band_starts[first : last + 1]
        cursor = tile_starts(here, marks, spans, pairs[0], height, columns)
        if group == 0:
            bounds[b * per_view : b * per_view + per_view] = cursor
        order = in_depth_order(here, pairs)
        place(here, order, first, marks, spans, height, columns, group, groups, cursor, pairs, ids, slots)
