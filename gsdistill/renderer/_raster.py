"""Kernels from screen ellipses to pixels and back, one tile of 8 x 8 pixels at a time, all tiles in parallel.

Every pixel of a tile goes through the same arithmetic without branches, so the compiler makes vectors of the inner
loops; a tile's pixels lie in one buffer, row after row of 64 numbers, so that it sees that they do not overlap.
Backward runs front to back too: with q_i = colour_i . v_colour + z_i v_depth and the total Q = sum_i w_i q_i known,
dL/dalpha_i = T_i q_i - (Q - sum_{j<=i} w_j q_j + T_end (background . v_colour - v_alpha)) / (1 - alpha_i).
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numba import prange

from gsdistill.compiled import compiled
from gsdistill.renderer._bins import SIDE
from gsdistill.renderer.base import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN

AREA = SIDE * SIDE
Array: TypeAlias = np.ndarray
# Rows of a tile's buffer: pixel centres, the transmittance of pixels that still gather (else 0), then forward: the
# final transmittance and the sums of red, green, blue, depth; backward: what is to come and the gradients of the four.
X, Y, LIVE, REST, RED, GREEN, BLUE, DEPTH = (AREA * row for row in range(8))
POLL = 8  # splats between two looks at whether the whole tile is done
FAR = np.float32(6.0)  # exp(-6) < 1/255: no alpha survives beyond
ZERO, ONE, HALF, EIGHTH = np.float32(0.0), np.float32(1.0), np.float32(0.5), np.float32(0.125)
FAINT, OPAQUE, DONE = np.float32(ALPHA_MIN), np.float32(ALPHA_MAX), np.float32(TRANSMITTANCE_MIN)
# exp(-x) = E0 - x (E1 - x (E2 - ...)) on 0..0.75 to 4e-9 relative (reweighted least squares)
E0, E1, E2 = np.float32(0.9999999967793847), np.float32(0.9999996143787634), np.float32(0.4999922516025169)
E3, E4 = np.float32(0.16660710218741562), np.float32(0.04144465629841135)
E5, E6 = np.float32(0.007899118630909563), np.float32(0.000950381969578407)


@compiled()
def exp_minus(s: float) -> float:
    """exp(-s) for 0 <= s <= 6 to about 1e-6 relative: a polynomial in s / 8, to the eighth power."""
    x = s * EIGHTH
    e = E0 - x * (E1 - x * (E2 - x * (E3 - x * (E4 - x * (E5 - x * E6)))))
    e = e * e
    e = e * e
    return e * e


@compiled()
def shuffled(i: int, n: int) -> int:
    """A fixed permutation of 0..n-1 that scatters neighbours, so that equal shares hold equal work."""
    stride = int(n * 0.6180339887) | 1
    while math.gcd(stride, n) != 1:
        stride += 2
    return (i * stride) % n


@compiled()
def start_tile(buffer: Array, left: int, top: int, width: int, height: int) -> None:
    """Rows 0 and 1: pixel centres; row 2: the transmittance of pixels that still gather, zero outside of the image."""
    for p in range(AREA):
        x, y = left + p % SIDE, top + p // SIDE
        buffer[X + p], buffer[Y + p] = np.float32(x) + HALF, np.float32(y) + HALF
        buffer[LIVE + p] = ONE if x < width and y < height else ZERO


@compiled()
def gathers(buffer: Array) -> bool:
    """Whether any pixel of the tile still gathers."""
    most = ZERO
    for p in range(AREA):
        most = max(most, buffer[LIVE + p])
    return bool(most > ZERO)


@compiled()
def blend_tile(buffer: Array, splats: Array, ids: Array, first: int, last: int) -> int:
    """Blend the splats ids[first:last] into the tile; returns how far it had to go."""
    for pair in range(first, last):
        if (pair - first) % POLL == 0 and not gathers(buffer):
            return pair
        splat = splats[ids[pair]]
        mx, my, hA, k, hE, opacity = splat[0], splat[1], splat[2], splat[3], splat[4], splat[5]
        red, green, blue, depth = splat[6], splat[7], splat[8], splat[9]
        for p in range(AREA):
            dy = buffer[Y + p] - my
            u = buffer[X + p] - mx - k * dy
            alpha = min(opacity * exp_minus(min(hA * u * u + hE * dy * dy, FAR)), OPAQUE)
            alpha = alpha if alpha >= FAINT else ZERO
            before = buffer[LIVE + p]
            behind = before * (ONE - alpha)
            goes_on = behind > DONE
            weight = alpha * before if goes_on else ZERO
            buffer[LIVE + p] = behind if goes_on else ZERO
            buffer[REST + p] = behind if goes_on else buffer[REST + p]
            buffer[RED + p] += weight * red
            buffer[GREEN + p] += weight * green
            buffer[BLUE + p] += weight * blue
            buffer[DEPTH + p] += weight * depth
    return last


@compiled()
def blend_tile_backward(
    buffer: Array, splats: Array, ids: Array, slots: Array, first: int, last: int, tile_sums: Array
) -> None:
    """Write the sums over the tile's pixels of ids[first:last], see ``_project``."""
    for pair in range(first, last):
        splat, out = splats[ids[pair]], tile_sums[slots[pair]]
        mx, my, hA, k, hE, opacity = splat[0], splat[1], splat[2], splat[3], splat[4], splat[5]
        red, green, blue, depth = splat[6], splat[7], splat[8], splat[9]
        s0, s1, s2, s3, s4, s5, s6, s7, s8, s9 = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
        for p in range(AREA):
            dy = buffer[Y + p] - my
            u = buffer[X + p] - mx - k * dy
            raw = opacity * exp_minus(min(hA * u * u + hE * dy * dy, FAR))
            alpha = min(raw, OPAQUE)
            alpha = alpha if alpha >= FAINT else ZERO
            before = buffer[LIVE + p]
            behind = before * (ONE - alpha)
            goes_on = behind > DONE
            weight = alpha * before if goes_on else ZERO
            buffer[LIVE + p] = behind if goes_on else ZERO
            v_red, v_green, v_blue, v_depth = buffer[RED + p], buffer[GREEN + p], buffer[BLUE + p], buffer[DEPTH + p]
            q = red * v_red + green * v_green + blue * v_blue + depth * v_depth
            rest = buffer[REST + p] - weight * q
            buffer[REST + p] = rest
            h = alpha * rest / (ONE - alpha) - weight * q  # = -alpha dL/dalpha = dL/dsigma
            h = h if goes_on and raw <= OPAQUE else ZERO
            hu, hd = h * u, h * dy
            s0, s1, s2, s3, s4, s5 = s0 + h, s1 + hu, s2 + hd, s3 + hu * u, s4 + hu * dy, s5 + hd * dy
            s6, s7, s8, s9 = s6 + weight * v_red, s7 + weight * v_green, s8 + weight * v_blue, s9 + weight * v_depth
        out[0], out[1], out[2], out[3], out[4], out[5] = s0, s1, s2, s3, s4, s5
        out[6], out[7], out[8], out[9] = s6, s7, s8, s9


@compiled(parallel=True)
def rasterize(
    splats: Array, ids: Array, bounds: Array, backgrounds: Array,
    images: Array, alphas: Array, depths: Array, ends: Array, reached: Array,
) -> None:  # fmt: skip
    """Fill images [B, H, W, 3], alphas, depths, final transmittances ``ends`` [B, H, W], and each tile's last pair."""
    views, height, width = alphas.shape
    columns, per_view, total = (width + SIDE - 1) // SIDE, (len(bounds) - 1) // views, len(bounds) - 1
    for task in prange(total):
        tile = shuffled(task, total)
        b, left, top = tile // per_view, tile % per_view % columns * SIDE, tile % per_view // columns * SIDE
        buffer = np.zeros(8 * AREA, np.float32)
        start_tile(buffer, left, top, width, height)
        buffer[REST : REST + AREA] = ONE
        reached[tile] = blend_tile(buffer, splats, ids, bounds[tile], bounds[tile + 1])
        for y in range(top, min(top + SIDE, height)):
            for x in range(left, min(left + SIDE, width)):
                p = (y - top) * SIDE + x - left
                end = buffer[REST + p]
                images[b, y, x, 0] = buffer[RED + p] + end * backgrounds[b, 0]
                images[b, y, x, 1] = buffer[GREEN + p] + end * backgrounds[b, 1]
                images[b, y, x, 2] = buffer[BLUE + p] + end * backgrounds[b, 2]
                alphas[b, y, x], depths[b, y, x], ends[b, y, x] = ONE - end, buffer[DEPTH + p], end


@compiled(parallel=True)
def rasterize_backward(
    splats: Array, ids: Array, slots: Array, bounds: Array, reached: Array, images: Array, depths: Array, ends: Array,
    v_images: Array, v_alphas: Array, v_depths: Array, tile_sums: Array,
) -> None:  # fmt: skip
    """Fill the rows of ``tile_sums`` [pairs, 10] that ``slots`` points to."""
    views, height, width = depths.shape
    columns, per_view, total = (width + SIDE - 1) // SIDE, (len(bounds) - 1) // views, len(bounds) - 1
    for task in prange(total):
        tile = shuffled(task, total)
        b, left, top = tile // per_view, tile % per_view % columns * SIDE, tile % per_view // columns * SIDE
        buffer = np.zeros(8 * AREA, np.float32)
        start_tile(buffer, left, top, width, height)
        for y in range(top, min(top + SIDE, height)):
            for x in range(left, min(left + SIDE, width)):
                p = (y - top) * SIDE + x - left
                v_red, v_green, v_blue = v_images[b, y, x, 0], v_images[b, y, x, 1], v_images[b, y, x, 2]
                v_depth, v_alpha = v_depths[b, y, x], v_alphas[b, y, x]
                # Q + T_end background . v_colour is the blended pixel times its gradient
                rest = images[b, y, x, 0] * v_red + images[b, y, x, 1] * v_green + images[b, y, x, 2] * v_blue
                buffer[REST + p] = rest + depths[b, y, x] * v_depth - ends[b, y, x] * v_alpha
                buffer[RED + p], buffer[GREEN + p], buffer[BLUE + p] = v_red, v_green, v_blue
                buffer[DEPTH + p] = v_depth
        blend_tile_backward(buffer, splats, ids, slots, bounds[tile], reached[tile], tile_sums)
        for pair in range(reached[tile], bounds[tile + 1]):
            tile_sums[slots[pair]] = ZERO
