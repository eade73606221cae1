"""Kernels from parameters to screen ellipses, one Gaussian in one view at a time, computed in float64.

They write one row of ``splats`` [B N, 12] per Gaussian and view. With C = [[a, b], [b, c]] the blurred screen
covariance, the exponent is stored as a completed square, which does not suffer from cancellation for thin ellipses:

    sigma = hA (dx - k dy)^2 + hE dy^2,    hA = c / (2 det C),    k = b / c,    hE = 1 / (2 c).

A row: x, y, hA, k, hE, opacity, red, green, blue, depth, and the half sides of the box around alpha >= 1/255.
A row of cameras: W (9), t (3), position (3), fx, fy, cx, cy, and the limits of x/z (2) and y/z (2).
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np

from gsdistill.core.structs import SH_C0
from gsdistill.disk.compiled import compiled
from gsdistill.renderer._bins import bands
from gsdistill.renderer._vectors import Triple, cross, dot, sh_basis
from gsdistill.renderer.base import ALPHA_MIN, COVARIANCE_MAX, DEVIATION_MAX

MARGIN = 1.001  # factor of the squared extent, much more than the rasteriser's rounding errors

Array: TypeAlias = np.ndarray
Quadruple: TypeAlias = tuple[float, float, float, float]
Matrix: TypeAlias = tuple[float, float, float, float, float, float, float, float, float]  # 3 x 3, row after row
Footprint: TypeAlias = tuple[Triple, Triple, Triple, Triple, Triple, float, float, float, float, float]


class Lens(NamedTuple):
    """What all cameras of a batch share: the image size in pixels and RenderOptions."""

    width: int
    height: int
    near: float
    far: float
    eps2d: float
    antialiased: bool


@compiled(inline=True)
def rotation(quats: Array, n: int) -> tuple[Matrix, Quadruple, float]:
    """The rotation matrix (row-major 9-tuple) of the wxyz quaternion n, the quaternion at length 1, and its length."""
    q0, q1, q2, q3 = float(quats[n, 0]), float(quats[n, 1]), float(quats[n, 2]), float(quats[n, 3])
    length = math.sqrt(q0 * q0 + q1 * q1 + q2 * q2 + q3 * q3)
    w, x, y, z = q0 / length, q1 / length, q2 / length, q3 / length
    R = (
        1.0 - 2.0 * (y * y + z * z),
        2.0 * (x * y - w * z),
        2.0 * (x * z + w * y),
        2.0 * (x * y + w * z),
        1.0 - 2.0 * (x * x + z * z),
        2.0 * (y * z - w * x),
        2.0 * (x * z - w * y),
        2.0 * (y * z + w * x),
        1.0 - 2.0 * (x * x + y * y),
    )
    return R, (w, x, y, z), length


@compiled(inline=True)
def times_scales(R: Matrix, sizes: Array, n: int) -> Matrix:
    """R diag(sizes[n]) as a row-major 9-tuple."""
    s0, s1, s2 = float(sizes[n, 0]), float(sizes[n, 1]), float(sizes[n, 2])
    return (R[0] * s0, R[1] * s1, R[2] * s2, R[3] * s0, R[4] * s1, R[5] * s2, R[6] * s0, R[7] * s1, R[8] * s2)


@compiled(inline=True)
def to_camera(cams: Array, b: int, m: Triple) -> Triple:
    """The mean ``m`` in the coordinates of camera b."""
    x = cams[b, 0] * m[0] + cams[b, 1] * m[1] + cams[b, 2] * m[2] + cams[b, 9]
    y = cams[b, 3] * m[0] + cams[b, 4] * m[1] + cams[b, 5] * m[2] + cams[b, 10]
    z = cams[b, 6] * m[0] + cams[b, 7] * m[1] + cams[b, 8] * m[2] + cams[b, 11]
    return x, y, z


@compiled(inline=True)
def footprint(cams: Array, b: int, x: float, y: float, z: float, M: Matrix, eps2d: float) -> Footprint:
    """The rows of U = J W and L = U M, their normal L0 x L1 and its length, and a, b, c and det of the blurred C."""
    u, v = min(max(x / z, cams[b, 19]), cams[b, 20]), min(max(y / z, cams[b, 21]), cams[b, 22])
    j0, j1 = cams[b, 15] / z, cams[b, 16] / z
    U0 = (j0 * (cams[b, 0] - u * cams[b, 6]), j0 * (cams[b, 1] - u * cams[b, 7]), j0 * (cams[b, 2] - u * cams[b, 8]))
    U1 = (j1 * (cams[b, 3] - v * cams[b, 6]), j1 * (cams[b, 4] - v * cams[b, 7]), j1 * (cams[b, 5] - v * cams[b, 8]))
    c0, c1, c2 = (M[0], M[3], M[6]), (M[1], M[4], M[7]), (M[2], M[5], M[8])
    L0 = (dot(U0, c0), dot(U0, c1), dot(U0, c2))
    L1 = (dot(U1, c0), dot(U1, c1), dot(U1, c2))
    normal = cross(L0, L1)
    square = dot(normal, normal)  # = a c - b^2 before the blur (Lagrange), but without cancellation
    a, c = dot(L0, L0), dot(L1, L1)
    det = square + eps2d * (a + c) + eps2d * eps2d
    return U0, U1, L0, L1, normal, math.sqrt(square), a + eps2d, dot(L0, L1), c + eps2d, det


@compiled(inline=True)
def view_direction(cams: Array, b: int, m: Triple) -> tuple[Triple, float]:
    """Unit vector from the camera to the mean, and the distance."""
    dx, dy, dz = m[0] - cams[b, 12], m[1] - cams[b, 13], m[2] - cams[b, 14]
    distance = math.sqrt(dx * dx + dy * dy + dz * dz)
    return (dx / distance, dy / distance, dz / distance), distance


@compiled(inline=True)
def project_one(
    cams: Array, b: int, m: Triple, M: Matrix, opacity: float, sh: Array, n: int, lens: Lens, Y: Array,
    splats: Array, i: int,
) -> int:  # fmt: skip
    """Write row i of ``splats`` for Gaussian n in view b; returns its radius in pixels, 0 if it is culled."""
    x, y, z = to_camera(cams, b, m)
    if not (z >= lens.near and z <= lens.far):
        return 0
    _, _, _, _, _, area, a, skew, c, det = footprint(cams, b, x, y, z, M, lens.eps2d)
    if not (det > 0.0 and a + c < COVARIANCE_MAX):
        return 0
    if lens.antialiased:
        opacity *= area / math.sqrt(det)
    if not opacity >= ALPHA_MIN:
        return 0
    px, py = cams[b, 15] * x / z + cams[b, 17], cams[b, 16] * y / z + cams[b, 18]
    reach = 2.0 * math.log(opacity / ALPHA_MIN)
    rx, ry = math.ceil(math.sqrt(reach * a)), math.ceil(math.sqrt(reach * c))
    if not (px + rx > 0.0 and px - rx < lens.width and py + ry > 0.0 and py - ry < lens.height):
        return 0
    if len(Y) > 1:
        d, _ = view_direction(cams, b, m)
        sh_basis(d[0], d[1], d[2], Y)
    for channel in range(3):
        colour = 0.5
        for k in range(len(Y)):
            colour += Y[k] * sh[n, k, channel]
        splats[i, 6 + channel] = max(colour, 0.0)
    splats[i, 0], splats[i, 1], splats[i, 2], splats[i, 3], splats[i, 4] = px, py, 0.5 * c / det, skew / c, 0.5 / c
    splats[i, 5], splats[i, 9] = opacity, z
    reach = reach * MARGIN + 1e-3
    splats[i, 10], splats[i, 11] = math.sqrt(reach * a), math.sqrt(reach * c)
    return max(int(max(rx, ry)), 1)


@compiled()
def project(
    begin: int, end: int, means: Array, quats: Array, sizes: Array, opacities: Array, sh: Array,
    cams: Array, lens: Lens, splats: Array, radii: Array, counts: Array,
) -> None:  # fmt: skip
    """Fill ``splats`` [B N, 12], ``radii`` and ``counts`` (of bands, see ``_bins``) [B N] of Gaussians begin..end."""
    N, B, K = len(means), len(cams), sh.shape[1]
    Y = np.full(K, SH_C0)
    for n in range(begin, end):
        R, _, _ = rotation(quats, n)
        M = times_scales(R, sizes, n)
        m = (float(means[n, 0]), float(means[n, 1]), float(means[n, 2]))
        bounded = sizes[n, 0] < DEVIATION_MAX and sizes[n, 1] < DEVIATION_MAX and sizes[n, 2] < DEVIATION_MAX
        for b in range(B):
            i = b * N + n
            radii[i] = project_one(cams, b, m, M, float(opacities[n]), sh, n, lens, Y, splats, i) if bounded else 0
            first, last = bands(splats, i, lens.height) if radii[i] > 0 else (0, -1)
            counts[i] = last - first + 1
