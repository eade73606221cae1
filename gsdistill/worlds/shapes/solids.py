"""Solids as signed distance functions (SDF), compiled with Numba.

A solid's SDF d(p) is the distance from p to its surface, negative inside. Axes are the world's: +z up, the front
towards +x, everything inside the ball of radius 0.95. Primitives are exact; a union takes the minimum (exact outside),
and the mug's handle takes a maximum (a lower bound near the rim, still exact on the surface). Where d is
differentiable, its gradient is the outward unit normal.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gsdistill.disk.compiled import compiled

__all__ = ["BOUNDING_RADIUS", "HEIGHTS", "distances", "normals", "part_distance", "part_normal"]

BOUNDING_RADIUS = 0.95

# Lowest and highest z of each solid, in the order of captions.SHAPES; used to stack one on another.
HEIGHTS = (
    (-0.75, 0.75), (-0.52, 0.52), (-0.24, 0.24), (-0.62, 0.72), (-0.65, 0.65), (-0.84, 0.84), (-0.88, 0.88),
    (-0.52, 0.76), (-0.7, 0.86), (-0.76, 0.76), (-0.56, 0.42), (-0.72, 0.76), (-0.56, 0.56), (-0.82, 0.82),
)  # fmt: skip

_SPHERE, _CUBE, _TORUS, _CONE, _CYLINDER, _CAPSULE, _OCTAHEDRON = 0, 1, 2, 3, 4, 5, 6
_PYRAMID, _STAR, _CROSS, _TABLE, _CHAIR, _MUG = 7, 8, 9, 10, 11, 12

_STAR_OUTER, _STAR_INNER, _STAR_HALF = 0.86, 0.38, 0.17
_STAR_POINTS = np.array(
    [
        (r * math.sin(k * math.pi / 5.0), r * math.cos(k * math.pi / 5.0))
        for k in range(10)
        for r in ((_STAR_OUTER, _STAR_INNER)[k % 2],)
    ]
)
_CONE_PROFILE = np.array([(0.0, -0.62), (0.62, -0.62), (0.0, 0.72), (-0.62, -0.62)])  # mirrored about the axis


@compiled(fast=False)
def _box(x: float, y: float, z: float, a: float, b: float, c: float) -> float:
    qx, qy, qz = abs(x) - a, abs(y) - b, abs(z) - c
    outside = math.sqrt(max(qx, 0.0) ** 2 + max(qy, 0.0) ** 2 + max(qz, 0.0) ** 2)
    return outside + min(max(qx, max(qy, qz)), 0.0)


@compiled(fast=False)
def _rectangle(u: float, v: float, a: float, b: float) -> float:
    qu, qv = abs(u) - a, abs(v) - b
    return math.sqrt(max(qu, 0.0) ** 2 + max(qv, 0.0) ** 2) + min(max(qu, qv), 0.0)


@compiled(fast=False)
def _torus(u: float, v: float, axial: float, major: float, minor: float) -> float:
    return math.hypot(math.hypot(u, v) - major, axial) - minor


@compiled(fast=False)
def _polygon(u: float, v: float, points: NDArray[np.float64]) -> float:
    """Distance to a closed polygon: nearest edge, signed by the crossing rule."""
    best, inside = 1e30, False
    n = points.shape[0]
    j = n - 1
    for i in range(n):
        au, av, bu, bv = points[j, 0], points[j, 1], points[i, 0], points[i, 1]
        eu, ev, wu, wv = bu - au, bv - av, u - au, v - av
        s = min(max((wu * eu + wv * ev) / (eu * eu + ev * ev), 0.0), 1.0)
        du, dv = wu - s * eu, wv - s * ev
        best = min(best, du * du + dv * dv)
        if (av > v) != (bv > v) and u < au + (v - av) / ev * eu:
            inside = not inside
        j = i
    return -math.sqrt(best) if inside else math.sqrt(best)


@compiled(fast=False)
def _segment2(
    px: float, py: float, pz: float, ax: float, ay: float, az: float, bx: float, by: float, bz: float
) -> float:
    ex, ey, ez, wx, wy, wz = bx - ax, by - ay, bz - az, px - ax, py - ay, pz - az
    s = min(max((wx * ex + wy * ey + wz * ez) / (ex * ex + ey * ey + ez * ez), 0.0), 1.0)
    return (wx - s * ex) ** 2 + (wy - s * ey) ** 2 + (wz - s * ez) ** 2


@compiled(fast=False)
def _octahedron(x: float, y: float, z: float, s: float) -> float:
    """By symmetry only the face x + y + z = s of the first octant matters."""
    x, y, z = abs(x), abs(y), abs(z)
    m = (x + y + z - s) / 3.0
    if min(x - m, y - m, z - m) >= 0.0:  # the foot of the perpendicular lies on the face
        return m * math.sqrt(3.0)
    edge = min(
        _segment2(x, y, z, s, 0.0, 0.0, 0.0, s, 0.0),
        min(_segment2(x, y, z, 0.0, s, 0.0, 0.0, 0.0, s), _segment2(x, y, z, 0.0, 0.0, s, s, 0.0, 0.0)),
    )
    return math.sqrt(edge) if m > 0.0 else -math.sqrt(edge)


@compiled(fast=False)
def _pyramid(x: float, y: float, z: float, half: float, low: float, high: float) -> float:
    """Square base of half-width ``half`` at z = ``low``, apex at ``high``; folded onto the side that faces +x."""
    x, y = abs(x), abs(y)
    if y > x:
        x, y = y, x
    height = high - low
    norm = math.hypot(height, half)
    nx, nz = height / norm, half / norm  # outward normal of the side face
    side = (x - half) * nx + (z - low) * nz
    if side <= 0.0 and z >= low:  # inside: the nearest plane
        return max(side, low - z)
    best = 1e30
    if x <= half and z < low:  # the base square
        best = (low - z) ** 2
    fz = z - side * nz  # height of the foot on the side plane
    width = half * (high - fz) / height
    if low <= fz <= high and y <= width:
        best = min(best, side * side)
    best = min(best, _segment2(x, y, z, half, -half, low, half, half, low))
    best = min(best, _segment2(x, y, z, half, half, low, 0.0, 0.0, high))
    return math.sqrt(best)


@compiled(fast=False)
def _table(x: float, y: float, z: float) -> float:
    top = _box(x, y, z - 0.35, 0.5, 0.6, 0.07)
    legs = _box(abs(x) - 0.4, abs(y) - 0.5, z + 0.1, 0.075, 0.075, 0.46)
    return min(top, legs)


@compiled(fast=False)
def _chair(x: float, y: float, z: float) -> float:
    seat = _box(x, y, z + 0.08, 0.36, 0.36, 0.07)
    back = _box(x + 0.3, y, z - 0.34, 0.06, 0.36, 0.42)
    legs = _box(abs(x) - 0.29, abs(y) - 0.29, z + 0.42, 0.07, 0.07, 0.3)
    return min(seat, min(back, legs))


@compiled(fast=False)
def _mug(x: float, y: float, z: float) -> float:
    y = y + 0.14
    r = math.hypot(x, y)
    wall = _rectangle(r - 0.43, z, 0.055, 0.56)
    floor = _rectangle(r, z + 0.5, 0.45, 0.06)
    handle = max(_torus(y - 0.5, z, x, 0.27, 0.08), 0.43 - r)  # cut away inside the cup
    return min(wall, min(floor, handle))


@compiled(fast=False)
def _distance(kind: int, x: float, y: float, z: float) -> float:
    if kind == _SPHERE:
        return math.sqrt(x * x + y * y + z * z) - 0.75
    if kind == _CUBE:
        return _box(x, y, z, 0.52, 0.52, 0.52)
    if kind == _TORUS:
        return _torus(x, y, z, 0.62, 0.24)
    if kind == _CONE:
        return _polygon(math.hypot(x, y), z, _CONE_PROFILE)
    if kind == _CYLINDER:
        return _rectangle(math.hypot(x, y), z, 0.5, 0.65)
    if kind == _CAPSULE:
        return math.sqrt(x * x + y * y + max(abs(z) - 0.5, 0.0) ** 2) - 0.34
    if kind == _OCTAHEDRON:
        return _octahedron(x, y, z, 0.88)
    if kind == _PYRAMID:
        return _pyramid(x, y, z, 0.55, -0.52, 0.76)
    if kind == _STAR:
        flat, thick = _polygon(y, z, _STAR_POINTS), abs(x) - _STAR_HALF
        return math.hypot(max(flat, 0.0), max(thick, 0.0)) + min(max(flat, thick), 0.0)
    if kind == _CROSS:
        bars = min(_box(x, y, z, 0.76, 0.22, 0.22), _box(x, y, z, 0.22, 0.76, 0.22))
        return min(bars, _box(x, y, z, 0.22, 0.22, 0.76))
    if kind == _TABLE:
        return _table(x, y, z)
    if kind == _CHAIR:
        return _chair(x, y, z)
    if kind == _MUG:
        return _mug(x, y, z)
    return _torus(y, z, x, 0.73, 0.09)


@compiled(fast=False)
def part_distance(part: NDArray[np.float64], x: float, y: float, z: float) -> float:
    """Distance to one placed solid: ``part`` = (index in captions.SHAPES, scale, z offset)."""
    scale = part[1]
    return scale * _distance(int(part[0]), x / scale, y / scale, (z - part[2]) / scale)


@compiled(fast=False)
def part_normal(part: NDArray[np.float64], x: float, y: float, z: float) -> tuple[float, float, float]:
    """Outward unit normal: central differences in float64, exact to about 1e-9 away from edges."""
    h = 1e-5
    gx = part_distance(part, x + h, y, z) - part_distance(part, x - h, y, z)
    gy = part_distance(part, x, y + h, z) - part_distance(part, x, y - h, z)
    gz = part_distance(part, x, y, z + h) - part_distance(part, x, y, z - h)
    norm = math.sqrt(gx * gx + gy * gy + gz * gz) + 1e-30
    return gx / norm, gy / norm, gz / norm


@compiled(fast=False)
def distances(parts: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signed distance [M] of ``points`` [M, 3] to the union of ``parts`` [P, 3]."""
    out = np.empty(points.shape[0])
    for i in range(points.shape[0]):
        best = 1e30
        for p in range(parts.shape[0]):
            best = min(best, part_distance(parts[p], points[i, 0], points[i, 1], points[i, 2]))
        out[i] = best
    return out


@compiled(fast=False)
def normals(parts: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Outward unit normal [M, 3] of the nearest part at ``points`` [M, 3]."""
    out = np.empty((points.shape[0], 3))
    for i in range(points.shape[0]):
        best, nearest = 1e30, 0
        for p in range(parts.shape[0]):
            d = part_distance(parts[p], points[i, 0], points[i, 1], points[i, 2])
            if d < best:
                best, nearest = d, p
        n = part_normal(parts[nearest], points[i, 0], points[i, 1], points[i, 2])
        out[i, 0], out[i, 1], out[i, 2] = n
    return out
