"""The least time that rendering a scene can take on this processor: counted work over a measured rate.

    python tools/bench/renderer_floor.py

Work: pairs of pixel and Gaussian that contribute (alpha >= 1/255 while the pixel still gathers), in the images of all
cameras. Rate: loops of the very operations that such a pair costs, forward 22 multiplications, additions, fused pairs
of them and minima (9 of them the exponential) and two selections, backward 39, a division and three selections, over
1,024 pixels whose coordinates (8 KB) stay in the first-level cache; everything else stays in registers. One thread,
every lane of every vector busy: no kernel that does these operations is faster.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from gsdistill.core.structs import Cameras, Gaussians
from gsdistill.disk.compiled import compiled
from gsdistill.renderer import _project, _raster, cpu
from gsdistill.renderer._bins import TALL, WIDE
from gsdistill.renderer._raster import DONE, FAINT, FAR, ONE, OPAQUE, ZERO, exp_eight

PIXELS = 1024
OPERATIONS = {"forward": 22, "backward": 39}


@compiled()
def forward_mix(xs: np.ndarray, ys: np.ndarray, splat: np.ndarray, rounds: int) -> float:
    """The operations of ``_raster.blend``, their sums in registers."""
    a, e, shear, x, y, opacity, red, green, blue, depth, before = splat[:11]
    total = ZERO
    for turn in range(rounds):
        r, g, b, z, t = ZERO, ZERO, ZERO, ZERO, ZERO
        x += np.float32(turn) * np.float32(1e-9)
        for p in range(PIXELS):
            d = e * ys[p] - y
            u = a * xs[p] - (x + shear * d)
            alpha = min(opacity * exp_eight(min(u * u + d * d, FAR)), OPAQUE)
            alpha = alpha if alpha >= FAINT else ZERO
            weight = alpha * before
            behind = before - weight
            weight = weight if behind > DONE else ZERO
            r, g, b, z, t = r + weight * red, g + weight * green, b + weight * blue, z + weight * depth, t + behind
        total += r + g + b + z + t
    return float(total)


@compiled()
def backward_mix(xs: np.ndarray, ys: np.ndarray, splat: np.ndarray, rounds: int) -> float:
    """The operations of ``_raster.blend_backward``, their sums in registers."""
    a, e, shear, x, y, opacity, red, green, blue, depth, before = splat[:11]
    total = ZERO
    for turn in range(rounds):
        s0, s1, s2, s3, s4, s5, s6, s7, s8, s9 = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
        x += np.float32(turn) * np.float32(1e-9)
        for p in range(PIXELS):
            d = e * ys[p] - y
            u = a * xs[p] - (x + shear * d)
            raw = opacity * exp_eight(min(u * u + d * d, FAR))
            alpha = min(raw, OPAQUE)
            alpha = alpha if alpha >= FAINT else ZERO
            weight = alpha * before
            goes_on = before - weight > DONE
            weight = weight if goes_on else ZERO
            v_red, v_green, v_blue, v_depth = xs[p], ys[p], xs[p] + ONE, ys[p] + ONE
            wq = weight * (red * v_red + green * v_green + blue * v_blue + depth * v_depth)
            h = alpha * (before - wq) / (ONE - alpha) - wq
            h = h if goes_on and raw <= OPAQUE else ZERO
            hu, hd = h * u, h * d
            s0, s1, s2, s3, s4, s5 = s0 + h, s1 + hu, s2 + hd, s3 + hu * u, s4 + hu * d, s5 + hd * d
            s6, s7, s8, s9 = s6 + weight * v_red, s7 + weight * v_green, s8 + weight * v_blue, s9 + weight * v_depth
        total += s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7 + s8 + s9
    return float(total)


def rates(repeats: int = 30) -> dict[str, float]:
    """Nanoseconds per pair of pixel and Gaussian on one thread, the best of ``repeats``."""
    random = np.random.default_rng(0)
    xs, ys = random.uniform(0, 8, (2, PIXELS)).astype(np.float32)
    splat = np.array([0.1, 0.1, 0.05, 0.3, 0.4, 0.5, 0.2, 0.3, 0.4, 2.0, 0.8], np.float32)
    found = {}
    for name, mix in (("forward", forward_mix), ("backward", backward_mix)):
        mix(xs, ys, splat, 1)
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            mix(xs, ys, splat, 200)
            times.append(time.perf_counter() - begin)
        found[name] = min(times) / (200 * PIXELS) * 1e9
    return found


@compiled(fast=False)
def count_pairs(
    splats: np.ndarray, ids: np.ndarray, bounds: np.ndarray, reached: np.ndarray, per_view: int, width: int, height: int
) -> tuple[int, int]:
    """Pairs of pixel and splat that contribute, and pairs that the tiles walk through (their rows, whole vectors)."""
    contributing, walked = 0, 0
    columns = (width + WIDE - 1) // WIDE
    batch, live = np.empty(9 * _raster.BATCH, np.float32), np.empty((TALL, WIDE))
    for tile in range(len(bounds) - 1):
        left, top = tile % per_view % columns * WIDE, tile % per_view // columns * TALL
        for row in range(TALL):
            for column in range(WIDE):
                live[row, column] = 1.0 if top + row < height and left + column < width else 0.0
        for pair in range(bounds[tile], reached[tile]):
            i = ids[pair]
            _raster.prepare(splats, ids, pair, pair + 1, left, top, batch)
            low, high = TALL, -1
            for row in range(TALL):
                if live[row].max() > 0.0:
                    low, high = min(low, row), row
            first, end = _raster.pixels(batch, 0, low, high)
            walked += end - first
            for row in range(first // WIDE, end // WIDE):
                dy = top + row + 0.5 - splats[i, 1]
                for column in range(WIDE):
                    u = left + column + 0.5 - splats[i, 0] - splats[i, 3] * dy
                    alpha = splats[i, 5] * np.exp(-(splats[i, 2] * u * u + splats[i, 4] * dy * dy))
                    if alpha >= FAINT and live[row, column] > 0.0:
                        behind = live[row, column] * (1.0 - min(alpha, 0.999))
                        contributing += 1
                        live[row, column] = behind if behind > DONE else 0.0
    return contributing, walked


def counts(gaussians: Gaussians, cameras: Cameras) -> dict[str, int]:
    """What one render of the scene holds: visible splats, pairs of splat and tile, and pairs with pixels."""
    options, size = gaussians.options, (cameras.width, cameras.height)
    lens = _project.Lens(*size, options.near, options.far, options.eps2d, options.antialiased)
    g = gaussians
    values = [v.detach().numpy() for v in (g.means, g.quats, g.scales.exp(), g.opacities.sigmoid(), g.sh)]
    B, N = len(cameras), len(g)
    splats, radii, bands = np.empty((B * N, 12), np.float32), np.empty(B * N, np.int32), np.empty(B * N, np.int64)
    _project.project(0, N, *values, cpu.camera_rows(cameras), lens, splats, radii, bands)
    bins = cpu.bins_of(1, splats, bands, B, *size)
    tiles = len(bins["bounds"]) - 1
    shape = (B, size[1], size[0])
    pictures: list[Any] = [np.empty((*shape, 3), np.float32), *(np.empty(shape, np.float32) for _ in range(3))]
    reached = np.empty(tiles, np.int64)
    black = np.zeros((B, 3), np.float32)
    _raster.rasterize(0, tiles, splats, bins["ids"], bins["bounds"], black, *pictures, reached)
    contributing, walked = count_pairs(splats, bins["ids"], bins["bounds"], reached, tiles // B, *size)
    tile_pairs = int((reached - bins["bounds"][:-1]).sum())
    return {"visible": int((radii > 0).sum()), "tile_pairs": tile_pairs, "walked": walked, "contributing": contributing}


def main() -> None:
    """Print the measured rate."""
    torch.set_num_threads(1)
    for name, nanoseconds in rates().items():
        print(f"{name:9} {nanoseconds:6.3f} ns per pair, {OPERATIONS[name] / nanoseconds:6.1f} operations per ns")


if __name__ == "__main__":
    main()
