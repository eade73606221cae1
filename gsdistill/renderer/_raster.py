"""Kernels from screen ellipses to pixels and back, one tile of 8 x 16 pixels at a time.

A tile's pixels are in one buffer, row after row. Each splat is blended into the rows that its ellipse touches, with the
same arithmetic for all their pixels and without branches, so that the compiler vectorises the inner loops. It can do so
because indices are unsigned (negative ones would need a check) and there is one buffer (two might overlap). With
a = sqrt(hA / 8), e = sqrt(hE / 8), the exponent of ``_project`` is 8 (u^2 + d^2) with u = a (dx - k dy), d = e dy.

Backward goes front to back too: with q_i = colour_i . v_colour + z_i v_depth and the total Q = sum_i w_i q_i, which
follows from the image,
    dL/dalpha_i = T_i q_i - (Q - sum_{j<=i} w_j q_j + T_end (background . v_colour - v_alpha)) / (1 - alpha_i).
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from gsdistill.disk.compiled import compiled
from gsdistill.renderer._bins import TALL, WIDE
from gsdistill.renderer.base import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN

AREA = WIDE * TALL
STEP = 8 // WIDE  # rows of a tile in one vector of 8 numbers
BATCH = 32  # splats that are prepared together
# Parts of a batch: the first and last row of the tile that the splat touches (first > last if none), a, e, a k / e, a x
# and e y measured from the tile's corner, 1 / a, 1 / e.
S1, S2, S3, S4, S5, S6, S7, S8 = (BATCH * part for part in range(1, 9))
POLL = 8  # splats between two checks of which rows have unfinished pixels
Array: TypeAlias = np.ndarray
# Parts of a tile's buffer: the pixel centres x and y, and the transmittance of unfinished pixels (0 for finished ones).
# Then, in forward, the final transmittance and the sums of red, green, blue and depth; in backward, the rest of Q that
# lies behind the present splat and the gradients of red, green, blue and depth.
X, Y, LIVE, REST, RED, GREEN, BLUE, DEPTH = (np.uintp(AREA * row) for row in range(8))
BUFFER = 8 * AREA
FAR = np.float32(0.75)  # exp(-8 * 0.75) < 1/255: from here on every alpha is ignored
ZERO, ONE, HALF, EIGHTH = np.float32(0.0), np.float32(1.0), np.float32(0.5), np.float32(0.125)
NEAR, BEYOND = np.float32(0.48), np.float32(WIDE - 0.48)  # the box of the pixel centres and 0.02 pixels around it
FAINT, OPAQUE, DONE = np.float32(ALPHA_MIN), np.float32(ALPHA_MAX), np.float32(TRANSMITTANCE_MIN)
# exp(-x) = E0 - x (E1 - x (E2 - ...)) on 0..0.75 to 4e-9 relative (reweighted least squares)
E0, E1, E2 = np.float32(0.9999999967793847), np.float32(0.9999996143787634), np.float32(0.4999922516025169)
E3, E4 = np.float32(0.16660710218741562), np.float32(0.04144465629841135)
E5, E6 = np.float32(0.007899118630909563), np.float32(0.000950381969578407)


@compiled(inline=True)
def exp_eight(x: float) -> float:
    """exp(-8 x) for 0 <= x <= 0.75 to about 1e-6 relative: a polynomial, to the eighth power."""
    e = E0 - x * (E1 - x * (E2 - x * (E3 - x * (E4 - x * (E5 - x * E6)))))
    e = e * e
    e = e * e
    return e * e


@compiled(inline=True)
def shuffled(i: int, n: int) -> int:
    """Place i of a fixed permutation of 0..n-1 that scatters neighbours, so that equal shares take about equal time."""
    stride = int(n * 0.6180339887) | 1
    while math.gcd(stride, n) != 1:
        stride += 2
    return (i * stride) % n


@compiled(inline=True)
def start_tile(buffer: Array, left: int, top: int, width: int, height: int) -> None:
    """Write the pixel centres, from the tile's corner; transmittance 1 inside and 0 outside of the image; sums 0."""
    buffer[:] = ZERO
    for p in range(AREA):
        x, y = p % WIDE, p // WIDE
        buffer[X + np.uintp(p)], buffer[Y + np.uintp(p)] = np.float32(x) + HALF, np.float32(y) + HALF
        buffer[LIVE + np.uintp(p)] = ONE if left + x < width and top + y < height else ZERO


@compiled(inline=True)
def live_rows(buffer: Array) -> tuple[int, int]:
    """The first and last row of the tile with an unfinished pixel; first > last if there is none."""
    first, last = TALL, -1
    for row in range(TALL):
        most = ZERO
        for x in range(WIDE):
            most = max(most, buffer[LIVE + np.uintp(row * WIDE + x)])
        if most > ZERO:
            first, last = min(first, row), row
    return first, last


@compiled(inline=True)
def prepare(splats: Array, ids: Array, first: int, last: int, left: int, top: int, batch: Array) -> None:
    """Fill ``batch`` for the next splats of the tile; rows are computed as ``_bins.write_spans`` computes columns."""
    for j in range(BATCH):
        i = ids[min(first + j, last - 1)]
        batch[j], batch[S1 + j] = splats[i, 0] - np.float32(left), splats[i, 1] - np.float32(top)
        batch[S2 + j], batch[S3 + j], batch[S4 + j] = splats[i, 2], splats[i, 3], splats[i, 4]
        batch[S5 + j], batch[S6 + j] = splats[i, 10], splats[i, 11]
    for j in range(BATCH):
        x, y, hA, k, hE = batch[j], batch[S1 + j], batch[S2 + j], batch[S3 + j], batch[S4 + j]
        ex, ey = batch[S5 + j], batch[S6 + j]
        low, high = max(min(NEAR - x, ex), -ex), max(min(BEYOND - x, ex), -ex)
        g = ey / ex
        peak = k * ey  # dx of the lowest point; the highest mirrors it
        slope = peak * g / ex
        ratio = hE / hA * (g * g) * (g * g)
        at_bottom, at_top = min(max(peak, low), high), min(max(-peak, low), high)
        bottom = y + slope * at_bottom + math.sqrt(max((ex * ex - at_bottom * at_bottom) * ratio, ZERO))
        above = y + slope * at_top - math.sqrt(max((ex * ex - at_top * at_top) * ratio, ZERO))
        a, e = math.sqrt(hA * EIGHTH), math.sqrt(hE * EIGHTH)
        batch[j] = math.ceil(max(min(above - (ONE - NEAR), np.float32(TALL)), ZERO))
        batch[S1 + j] = math.floor(max(min(bottom - NEAR, np.float32(TALL - 1)), -ONE))
        batch[S2 + j], batch[S3 + j], batch[S4 + j] = a, e, a * k / e
        batch[S5 + j], batch[S6 + j] = a * x, e * y
        batch[S7 + j], batch[S8 + j] = ONE / a, ONE / e


@compiled(inline=True)
def pixels(batch: Array, j: int, low: int, high: int) -> tuple[int, int]:
    """The first pixel and the one after the last of the rows that splat j touches in low..high, as whole vectors."""
    first, last = max(int(batch[j]), low), min(int(batch[S1 + j]), high)
    if first > last:
        return 0, 0
    return first // STEP * STEP * WIDE, (last // STEP + 1) * STEP * WIDE


@compiled(inline=True)
def blend(buffer: Array, splats: Array, i: int, batch: Array, j: int, first: int, last: int) -> None:
    """Blend splat i, number j of the batch, into the pixels first..last - 1 of the tile."""
    a, e, shear, x, y = batch[S2 + j], batch[S3 + j], batch[S4 + j], batch[S5 + j], batch[S6 + j]
    opacity, red, green, blue, depth = splats[i, 5], splats[i, 6], splats[i, 7], splats[i, 8], splats[i, 9]
    for p in range(np.uintp(first), np.uintp(last)):
        d = e * buffer[Y + p] - y
        u = a * buffer[X + p] - (x + shear * d)
        alpha = min(opacity * exp_eight(min(u * u + d * d, FAR)), OPAQUE)
        alpha = alpha if alpha >= FAINT else ZERO
        before = buffer[LIVE + p]
        weight = alpha * before
        behind = before - weight
        goes_on = behind > DONE
        weight = weight if goes_on else ZERO
        buffer[LIVE + p] = behind if goes_on else ZERO
        buffer[REST + p] = behind if goes_on else buffer[REST + p]
        buffer[RED + p] += weight * red
        buffer[GREEN + p] += weight * green
        buffer[BLUE + p] += weight * blue
        buffer[DEPTH + p] += weight * depth


@compiled(inline=True)
def blend_backward(
    buffer: Array, splats: Array, i: int, batch: Array, j: int, first: int, last: int, out: Array, row: int
) -> None:  # fmt: skip
    """Write the sums over the pixels first..last - 1 of the tile to out[row], see ``_unproject``."""
    a, e, shear, x, y = batch[S2 + j], batch[S3 + j], batch[S4 + j], batch[S5 + j], batch[S6 + j]
    opacity, red, green, blue, depth = splats[i, 5], splats[i, 6], splats[i, 7], splats[i, 8], splats[i, 9]
    s0, s1, s2, s3, s4, s5, s6, s7, s8, s9 = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
    for p in range(np.uintp(first), np.uintp(last)):
        d = e * buffer[Y + p] - y
        u = a * buffer[X + p] - (x + shear * d)
        raw = opacity * exp_eight(min(u * u + d * d, FAR))
        alpha = min(raw, OPAQUE)
        alpha = alpha if alpha >= FAINT else ZERO
        before = buffer[LIVE + p]
        weight = alpha * before
        behind = before - weight
        goes_on = behind > DONE
        weight = weight if goes_on else ZERO
        buffer[LIVE + p] = behind if goes_on else ZERO
        v_red, v_green, v_blue, v_depth = buffer[RED + p], buffer[GREEN + p], buffer[BLUE + p], buffer[DEPTH + p]
        wq = weight * (red * v_red + green * v_green + blue * v_blue + depth * v_depth)
        rest = buffer[REST + p] - wq
        buffer[REST + p] = rest
        h = alpha * rest / (ONE - alpha) - wq  # = -alpha dL/dalpha = dL/dsigma
        h = h if goes_on and raw <= OPAQUE else ZERO
        hu, hd = h * u, h * d
        s0, s1, s2, s3, s4, s5 = s0 + h, s1 + hu, s2 + hd, s3 + hu * u, s4 + hu * d, s5 + hd * d
        s6, s7, s8, s9 = s6 + weight * v_red, s7 + weight * v_green, s8 + weight * v_blue, s9 + weight * v_depth
    a, e = batch[S7 + j], batch[S8 + j]
    out[row, 0], out[row, 1], out[row, 2] = s0, s1 * a, s2 * e
    out[row, 3], out[row, 4], out[row, 5] = s3 * (a * a), s4 * (a * e), s5 * (e * e)
    out[row, 6], out[row, 7], out[row, 8], out[row, 9] = s6, s7, s8, s9


@compiled()
def rasterize(
    begin: int, end: int, splats: Array, ids: Array, bounds: Array, backgrounds: Array,
    images: Array, alphas: Array, depths: Array, ends: Array, reached: Array,
) -> None:  # fmt: skip
    """Render the tiles begin..end in shuffled order.

    Fills ``images`` [B, H, W, 3], ``alphas``, ``depths`` and the final transmittances ``ends`` [B, H, W], and in
    ``reached`` [B tiles] the pair at which each tile ended.
    """
    views, height, width = alphas.shape
    columns, per_view, total = (width + WIDE - 1) // WIDE, (len(bounds) - 1) // views, len(bounds) - 1
    buffer, batch = np.zeros(BUFFER, np.float32), np.empty(9 * BATCH, np.float32)
    for task in range(begin, end):
        tile = shuffled(task, total)
        b, left, top = tile // per_view, tile % per_view % columns * WIDE, tile % per_view // columns * TALL
        start_tile(buffer, left, top, width, height)
        buffer[REST : REST + np.uintp(AREA)] = ONE
        pair, last = bounds[tile], bounds[tile + 1]
        low, high = 0, TALL - 1
        while pair < last:
            j = (pair - bounds[tile]) % BATCH
            if j % POLL == 0:
                low, high = live_rows(buffer)
                if low > high:
                    break
            if j == 0:
                prepare(splats, ids, pair, last, left, top, batch)
            p, q = pixels(batch, j, low, high)
            blend(buffer, splats, ids[pair], batch, j, p, q)
            pair += 1
        reached[tile] = pair
        for y in range(top, min(top + TALL, height)):
            for x in range(left, min(left + WIDE, width)):
                p = np.uintp((y - top) * WIDE + x - left)
                rest = buffer[REST + p]
                images[b, y, x, 0] = buffer[RED + p] + rest * backgrounds[b, 0]
                images[b, y, x, 1] = buffer[GREEN + p] + rest * backgrounds[b, 1]
                images[b, y, x, 2] = buffer[BLUE + p] + rest * backgrounds[b, 2]
                alphas[b, y, x], depths[b, y, x], ends[b, y, x] = ONE - rest, buffer[DEPTH + p], rest


@compiled()
def rasterize_backward(
    begin: int, end: int, splats: Array, ids: Array, bounds: Array, reached: Array,
    images: Array, depths: Array, ends: Array,
    v_images: Array, v_alphas: Array, v_depths: Array, tile_sums: Array,
) -> None:  # fmt: skip
    """Fill ``tile_sums`` [pairs, 10], one row per entry of ``ids``, for the tiles begin..end in shuffled order."""
    views, height, width = depths.shape
    columns, per_view, total = (width + WIDE - 1) // WIDE, (len(bounds) - 1) // views, len(bounds) - 1
    buffer, batch = np.zeros(BUFFER, np.float32), np.empty(9 * BATCH, np.float32)
    for task in range(begin, end):
        tile = shuffled(task, total)
        b, left, top = tile // per_view, tile % per_view % columns * WIDE, tile % per_view // columns * TALL
        start_tile(buffer, left, top, width, height)
        for y in range(top, min(top + TALL, height)):
            for x in range(left, min(left + WIDE, width)):
                p = np.uintp((y - top) * WIDE + x - left)
                v_red, v_green, v_blue = v_images[b, y, x, 0], v_images[b, y, x, 1], v_images[b, y, x, 2]
                v_depth, v_alpha = v_depths[b, y, x], v_alphas[b, y, x]
                # Q + T_end background . v_colour is the blended pixel times its gradient
                rest = images[b, y, x, 0] * v_red + images[b, y, x, 1] * v_green + images[b, y, x, 2] * v_blue
                buffer[REST + p] = rest + depths[b, y, x] * v_depth - ends[b, y, x] * v_alpha
                buffer[RED + p], buffer[GREEN + p], buffer[BLUE + p] = v_red, v_green, v_blue
                buffer[DEPTH + p] = v_depth
        low, high = 0, TALL - 1
        for pair in range(bounds[tile], reached[tile]):
            j = (pair - bounds[tile]) % BATCH
            if j % POLL == 0:
                low, high = live_rows(buffer)
            if j == 0:
                prepare(splats, ids, pair, reached[tile], left, top, batch)
            p, q = pixels(batch, j, low, high)
            blend_backward(buffer, splats, ids[pair], batch, j, p, q, tile_sums, pair)
        tile_sums[reached[tile] : bounds[tile + 1]] = ZERO
