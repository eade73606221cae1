"""Kernels from gradients of screen ellipses to gradients of parameters: the backward of ``_project``, also in float64.

Their input is, for every pair of Gaussian and tile, ten sums of ``_raster`` over the tile's pixels: of h = dL/dsigma
times 1, u, d, u^2, u d, d^2 with u = dx - k dy, d = dy, and of the weights times the gradients of colour and depth.
"""

from __future__ import annotations

import math

import numpy as np

from gsdistill.core.structs import SH_C0
from gsdistill.disk.compiled import compiled
from gsdistill.renderer._project import (
    Array,
    Footprint,
    Lens,
    Matrix,
    Quadruple,
    footprint,
    rotation,
    times_scales,
    to_camera,
    view_direction,
)
from gsdistill.renderer._vectors import Triple, combined, cross, dot, sh_basis, sh_slopes

CHUNK = 64  # Gaussians whose sums are added up together, so that the processor can load many from memory at once
ZEROS = (0.0, 0.0, 0.0)


@compiled(inline=True)
def shape_backward(f: Footprint, v_A: float, v_k: float, v_E: float, v_dimming: float) -> tuple[Triple, Triple]:
    """The gradients of the rows of L from those of A = 2 hA, k, E = 2 hE and the antialiasing factor."""
    _, _, L0, L1, normal, area, a, b, c, det = f
    A, k, E = c / det, b / c, 1.0 / c
    v_a = -A * A * v_A
    v_b = 2.0 * k * A * A * v_A + E * v_k
    v_c = -k * k * A * A * v_A - k * E * v_k - E * E * v_E
    v_det = -0.5 * v_dimming * area / (det * math.sqrt(det))
    v_a, v_b, v_c = v_a + v_det * c, v_b - 2.0 * v_det * b, v_c + v_det * a
    slope = v_dimming / (math.sqrt(det) * area) if area > 0.0 else 0.0
    v_n = (slope * normal[0], slope * normal[1], slope * normal[2])
    v_L0 = combined(2.0 * v_a, L0, v_b, L1, cross(L1, v_n))
    v_L1 = combined(2.0 * v_c, L1, v_b, L0, cross(v_n, L0))
    return v_L0, v_L1


@compiled(inline=True)
def colour_backward(
    cams: Array, b: int, m: Triple, sh: Array, n: int, splats: Array, i: int, sums: Array, j: int,
    Y: Array, D: Array, v_sh: Array,
) -> Triple:  # fmt: skip
    """Add the gradient of the SH to v_sh [K, 3]; return that of the mean through the viewing direction."""
    if len(Y) == 1:
        for channel in range(3):
            v_sh[0, channel] += sums[j, 6 + channel] * SH_C0 if splats[i, 6 + channel] > 0.0 else 0.0
        return 0.0, 0.0, 0.0
    d, distance = view_direction(cams, b, m)
    sh_basis(d[0], d[1], d[2], Y)
    sh_slopes(d[0], d[1], d[2], D)
    v0, v1, v2 = 0.0, 0.0, 0.0
    for channel in range(3):
        if splats[i, 6 + channel] > 0.0:
            v = sums[j, 6 + channel]
            for k in range(len(Y)):
                v_sh[k, channel] += v * Y[k]
                w = v * sh[n, k, channel]
                v0, v1, v2 = v0 + w * D[k, 0], v1 + w * D[k, 1], v2 + w * D[k, 2]
    radial = v0 * d[0] + v1 * d[1] + v2 * d[2]
    return (v0 - radial * d[0]) / distance, (v1 - radial * d[1]) / distance, (v2 - radial * d[2]) / distance


@compiled(inline=True)
def view_backward(
    cams: Array, b: int, m: Triple, M: Matrix, sigmoid: float, splats: Array, i: int, sums: Array, j: int, lens: Lens
) -> tuple[Triple, Triple, Triple, Triple, float, float, float]:
    """The gradients of the mean, the rows of M, the logit and the screen mean (x, y) from one view."""
    x, y, z = to_camera(cams, b, m)
    f = footprint(cams, b, x, y, z, M, lens.eps2d)
    U0, U1 = f[0], f[1]
    hA, k, hE = float(splats[i, 2]), float(splats[i, 3]), float(splats[i, 4])
    v_px = -2.0 * hA * sums[j, 1]
    v_py = -2.0 * hE * sums[j, 2] - k * v_px
    v_opacity = -sums[j, 0] / splats[i, 5]
    dimming = f[5] / math.sqrt(f[9]) if lens.antialiased else 1.0
    v_logit = v_opacity * dimming * sigmoid * (1.0 - sigmoid)
    v_dimming = v_opacity * sigmoid if lens.antialiased else 0.0
    v_L0, v_L1 = shape_backward(f, 0.5 * sums[j, 3], -2.0 * hA * sums[j, 4], 0.5 * sums[j, 5], v_dimming)
    v_U0 = (dot((M[0], M[1], M[2]), v_L0), dot((M[3], M[4], M[5]), v_L0), dot((M[6], M[7], M[8]), v_L0))
    v_U1 = (dot((M[0], M[1], M[2]), v_L1), dot((M[3], M[4], M[5]), v_L1), dot((M[6], M[7], M[8]), v_L1))
    v_M0 = combined(U0[0], v_L0, U1[0], v_L1, ZEROS)
    v_M1 = combined(U0[1], v_L0, U1[1], v_L1, ZEROS)
    v_M2 = combined(U0[2], v_L0, U1[2], v_L1, ZEROS)
    w0, w1 = (cams[b, 0], cams[b, 1], cams[b, 2]), (cams[b, 3], cams[b, 4], cams[b, 5])
    w2 = (cams[b, 6], cams[b, 7], cams[b, 8])
    j0, j1 = cams[b, 15] / z, cams[b, 16] / z
    v_x, v_y = j0 * v_px, j1 * v_py
    v_z = sums[j, 9] - (v_x * x + v_y * y + dot(v_U0, U0) + dot(v_U1, U1)) / z
    if cams[b, 19] <= x / z <= cams[b, 20]:  # not clamped to the field of view
        v_u = -j0 * dot(v_U0, w2) / z
        v_x, v_z = v_x + v_u, v_z - v_u * x / z
    if cams[b, 21] <= y / z <= cams[b, 22]:
        v_v = -j1 * dot(v_U1, w2) / z
        v_y, v_z = v_y + v_v, v_z - v_v * y / z
    v_m = combined(v_x, w0, v_y, w1, (v_z * w2[0], v_z * w2[1], v_z * w2[2]))
    return v_m, v_M0, v_M1, v_M2, v_logit, v_px, v_py


@compiled(inline=True)
def rotation_backward(
    R: Matrix, unit: Quadruple, length: float, s: Triple, v_M0: Triple, v_M1: Triple, v_M2: Triple
) -> tuple[Quadruple, Triple]:
    """The gradients of the quaternion and of the logarithms of s from that of the rows of M = R diag(s)."""
    w, x, y, z = unit
    G0, G1, G2 = v_M0[0] * s[0], v_M0[1] * s[1], v_M0[2] * s[2]  # gradient of R, row after row
    G3, G4, G5 = v_M1[0] * s[0], v_M1[1] * s[1], v_M1[2] * s[2]
    G6, G7, G8 = v_M2[0] * s[0], v_M2[1] * s[1], v_M2[2] * s[2]
    v_s = (R[0] * G0 + R[3] * G3 + R[6] * G6, R[1] * G1 + R[4] * G4 + R[7] * G7, R[2] * G2 + R[5] * G5 + R[8] * G8)
    v_w = 2.0 * (x * (G7 - G5) + y * (G2 - G6) + z * (G3 - G1))
    v_x = 2.0 * (y * (G1 + G3) + z * (G2 + G6) + w * (G7 - G5) - 2.0 * x * (G4 + G8))
    v_y = 2.0 * (x * (G1 + G3) + z * (G5 + G7) + w * (G2 - G6) - 2.0 * y * (G0 + G8))
    v_z = 2.0 * (x * (G2 + G6) + y * (G5 + G7) + w * (G3 - G1) - 2.0 * z * (G0 + G4))
    radial = w * v_w + x * v_x + y * v_y + z * v_z
    inverse = 1.0 / length
    v_q = (
        (v_w - radial * w) * inverse,
        (v_x - radial * x) * inverse,
        (v_y - radial * y) * inverse,
        (v_z - radial * z) * inverse,
    )
    return v_q, v_s


@compiled(inline=True)
def add_rows(tile_sums: Array, slots: Array, first: int, last: int, out: Array, j: int) -> None:
    """Write the sum of the rows slots[first:last] of ``tile_sums`` to out[j]."""
    s0, s1, s2, s3, s4, s5, s6, s7, s8, s9 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for pair in range(first, last):
        r = np.uintp(slots[pair])
        s0, s1, s2 = s0 + tile_sums[r, 0], s1 + tile_sums[r, 1], s2 + tile_sums[r, 2]
        s3, s4, s5 = s3 + tile_sums[r, 3], s4 + tile_sums[r, 4], s5 + tile_sums[r, 5]
        s6, s7, s8, s9 = s6 + tile_sums[r, 6], s7 + tile_sums[r, 7], s8 + tile_sums[r, 8], s9 + tile_sums[r, 9]
    out[j, 0], out[j, 1], out[j, 2], out[j, 3], out[j, 4] = s0, s1, s2, s3, s4
    out[j, 5], out[j, 6], out[j, 7], out[j, 8], out[j, 9] = s5, s6, s7, s8, s9


@compiled(inline=True)
def one_backward(
    n: int, means: Array, quats: Array, sizes: Array, opacities: Array, sh: Array, cams: Array, lens: Lens,
    splats: Array, starts: Array, sums: Array, j: int, Y: Array, D: Array, v_sh_n: Array,
    v_means: Array, v_quats: Array, v_scales: Array, v_logits: Array, v_sh: Array, v_screen: Array,
) -> None:  # fmt: skip
    """Write the gradients of Gaussian n; its sums in view b are row j + b CHUNK. Y, D and v_sh_n are work space."""
    N = len(means)
    R, unit, length = rotation(quats, n)
    M = times_scales(R, sizes, n)
    m = (float(means[n, 0]), float(means[n, 1]), float(means[n, 2]))
    v_m, v_M0, v_M1, v_M2 = ZEROS, ZEROS, ZEROS, ZEROS
    v_logit, seen = 0.0, False
    for b in range(len(cams)):
        i, row = b * N + n, b * CHUNK + j
        if starts[i] == starts[i + 1]:
            continue
        if not seen:
            v_sh_n[:] = 0.0
        seen = True
        v = colour_backward(cams, b, m, sh, n, splats, i, sums, row, Y, D, v_sh_n)
        g = view_backward(cams, b, m, M, float(opacities[n]), splats, i, sums, row, lens)
        v_m = (v_m[0] + v[0] + g[0][0], v_m[1] + v[1] + g[0][1], v_m[2] + v[2] + g[0][2])
        v_M0 = (v_M0[0] + g[1][0], v_M0[1] + g[1][1], v_M0[2] + g[1][2])
        v_M1 = (v_M1[0] + g[2][0], v_M1[1] + g[2][1], v_M1[2] + g[2][2])
        v_M2 = (v_M2[0] + g[3][0], v_M2[1] + g[3][1], v_M2[2] + g[3][2])
        v_logit += g[4]
        v_screen[i, 0], v_screen[i, 1] = g[5], g[6]
    if seen:
        v_q, v_s = rotation_backward(
            R, unit, length, (float(sizes[n, 0]), float(sizes[n, 1]), float(sizes[n, 2])), v_M0, v_M1, v_M2
        )
        v_means[n, 0], v_means[n, 1], v_means[n, 2], v_logits[n] = v_m[0], v_m[1], v_m[2], v_logit
        v_quats[n, 0], v_quats[n, 1], v_quats[n, 2], v_quats[n, 3] = v_q[0], v_q[1], v_q[2], v_q[3]
        v_scales[n, 0], v_scales[n, 1], v_scales[n, 2] = v_s[0], v_s[1], v_s[2]
        for k in range(len(Y)):
            for channel in range(3):
                v_sh[n, k, channel] = v_sh_n[k, channel]


@compiled()
def unproject(
    begin: int, end: int, means: Array, quats: Array, sizes: Array, opacities: Array, sh: Array,
    cams: Array, lens: Lens, splats: Array, starts: Array, slots: Array, tile_sums: Array,
    v_means: Array, v_quats: Array, v_scales: Array, v_logits: Array, v_sh: Array, v_screen: Array,
) -> None:  # fmt: skip
    """Write the gradients of the Gaussians begin..end into arrays of zeros.

    The sums of splat i are the rows slots[starts[i]..starts[i + 1]] of ``tile_sums``.
    """
    N, B, K = len(means), len(cams), sh.shape[1]
    Y, D, v_sh_n, sums = np.empty(K), np.empty((K, 3)), np.empty((K, 3)), np.empty((B * CHUNK, 10))
    for first in range(begin, end, CHUNK):
        last = min(first + CHUNK, end)
        for b in range(B):
            for n in range(first, last):
                i = b * N + n
                add_rows(tile_sums, slots, starts[i], starts[i + 1], sums, b * CHUNK + n - first)
        for n in range(first, last):
            one_backward(
                n, means, quats, sizes, opacities, sh, cams, lens, splats, starts, sums, n - first, Y, D, v_sh_n,
                v_means, v_quats, v_scales, v_logits, v_sh, v_screen,
            )  # fmt: skip
