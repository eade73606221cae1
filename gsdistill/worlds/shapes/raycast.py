"""Ray-caster of the shapes world: sphere tracing with s x s rays per pixel, half-Lambert light fixed in the world.

The shade of a part is the mean over all rays of c * (ambient + (1 - ambient) (1 + n . l) / 2), where c is 1 if the ray
hits the part first, else 0.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from gsdistill.core.structs import Cameras
from gsdistill.disk.compiled import compiled
from gsdistill.worlds.base import Buffers
from gsdistill.worlds.shapes.solids import BOUNDING_RADIUS, part_distance, part_normal

__all__ = ["AMBIENT", "LIGHT", "trace"]

_length = math.sqrt(0.4**2 + 0.5**2 + 0.77**2)
LIGHT = (0.4 / _length, -0.5 / _length, 0.77 / _length)  # unit vector towards the light
AMBIENT = 0.42
_HIT = 2e-4  # world units: a ray this near to a surface has hit it


def trace(parts: NDArray[np.float64], cameras: Cameras, supersample: int = 3) -> Buffers:
    """Ray-cast ``parts`` [P, 3] (see world.py) for every camera with supersample^2 rays per pixel.

    As many Python threads as torch uses take the views one by one. Numba's parallel loops would fix the threading of
    the whole process here, and could not run while another thread renders.
    """
    shade, coverage = np.zeros((2, len(cameras), parts.shape[0], cameras.height, cameras.width), dtype=np.float32)
    viewmats = cameras.viewmats.double().numpy()
    intrinsics = cameras.Ks.double().numpy()
    light = np.array(LIGHT)
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        rows = zip(viewmats, intrinsics, shade, coverage, strict=True)
        jobs = [pool.submit(_trace, parts, pose, k, supersample, light, lit, hit) for pose, k, lit, hit in rows]
    for job in jobs:
        job.result()
    return Buffers(torch.from_numpy(shade), torch.from_numpy(coverage))


@compiled(fast=False)
def _march(parts: NDArray[np.float64], o: NDArray[np.float64], dx: float, dy: float, dz: float) -> tuple[int, float]:
    """The index of the first part that the ray o + t d (d of length 1) hits, and t; (-1, 0) for a miss."""
    b = o[0] * dx + o[1] * dy + o[2] * dz
    c = o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - BOUNDING_RADIUS * BOUNDING_RADIUS
    disc = b * b - c
    if disc <= 0.0:
        return -1, 0.0
    root = math.sqrt(disc)
    t, end = max(-b - root, 0.0), -b + root
    for _ in range(160):
        nearest, best = -1, 1e30
        for p in range(parts.shape[0]):
            d = part_distance(parts[p], o[0] + t * dx, o[1] + t * dy, o[2] + t * dz)
            if d < best:
                nearest, best = p, d
        if best < _HIT:
            return nearest, t
        t += best
        if t > end:
            return -1, 0.0
    return -1, 0.0


@compiled(fast=False)
def _trace(
    parts: NDArray[np.float64],
    viewmat: NDArray[np.float64],
    k: NDArray[np.float64],
    supersample: int,
    light: NDArray[np.float64],
    shade: NDArray[np.float32],
    coverage: NDArray[np.float32],
) -> None:
    """Fill shade and coverage [P, H, W] of one view."""
    _, height, width = shade.shape
    weight = 1.0 / (supersample * supersample)
    rot, shift = viewmat[:3, :3], viewmat[:3, 3]
    o = np.empty(3)
    for axis in range(3):
        o[axis] = -(rot[0, axis] * shift[0] + rot[1, axis] * shift[1] + rot[2, axis] * shift[2])
    for row in range(height):
        for col in range(width):
            for sub in range(supersample * supersample):
                u = (col + (sub % supersample + 0.5) / supersample - k[0, 2]) / k[0, 0]
                v = (row + (sub // supersample + 0.5) / supersample - k[1, 2]) / k[1, 1]
                n = 1.0 / math.sqrt(u * u + v * v + 1.0)
                dx = (rot[0, 0] * u + rot[1, 0] * v + rot[2, 0]) * n
                dy = (rot[0, 1] * u + rot[1, 1] * v + rot[2, 1]) * n
                dz = (rot[0, 2] * u + rot[1, 2] * v + rot[2, 2]) * n
                p, t = _march(parts, o, dx, dy, dz)
                if p >= 0:
                    nx, ny, nz = part_normal(parts[p], o[0] + t * dx, o[1] + t * dy, o[2] + t * dz)
                    lit = 0.5 + 0.5 * (nx * light[0] + ny * light[1] + nz * light[2])
                    coverage[p, row, col] += weight
                    shade[p, row, col] += weight * (AMBIENT + (1.0 - AMBIENT) * lit)
