"""Kernels from parameters to screen ellipses and back, one Gaussian in one view at a time, inside in float64.

Forward writes one row of ``splats`` [B N, 12] per Gaussian and view. With C = [[a, b], [b, c]] the blurred screen
covariance, the exponent is kept in its completed square, which needles do not spoil by cancellation:

    sigma = hA (dx - k dy)^2 + hE dy^2,    hA = c / (2 det C),    k = b / c,    hE = 1 / (2 c).

Row: x, y, hA, k, hE, opacity, red, green, blue, depth, and the half sides of the box where alpha reaches 1/255.
Backward takes, for every pair of Gaussian and tile, the sums that ``_raster`` made over the tile's pixels.
Camera row: W (9), t (3), position (3), fx, fy, cx, cy, and the limits of x/z (2) and y/z (2).
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np
from numba import prange

from gsdistill.compiled import compiled
from gsdistill.renderer._vectors import Triple, combined, cross, dot, sh_basis, sh_slopes
from gsdistill.renderer.base import ALPHA_MIN, COVARIANCE_MAX

CHUNK = 64  # Gaussians per parallel task
MARGIN = 1.001  # of the squared extent, far above the rounding of the rasteriser

Array: TypeAlias = np.ndarray
Quadruple: TypeAlias = tuple[float, float, float, float]
Matrix: TypeAlias = tuple[float, float, float, float, float, float, float, float, float]  # 3 x 3, row after row
Footprint: TypeAlias = tuple[Triple, Triple, Triple, Triple, Triple, float, float, float, float, float]


class Lens(NamedTuple):
    """What all cameras of a batch share: the image size and RenderOptions."""

    width: int
    height: int
    near: float
    far: float
    eps2d: float
    antialiased: bool


@compiled()
def rotation(q: Array) -> tuple[Matrix, Quadruple, float]:
    """Rotation matrix (row-major 9-tuple) of a wxyz quaternion, its unit quaternion and its length."""
    q0, q1, q2, q3 = float(q[0]), float(q[1]), float(q[2]), float(q[3])
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


@compiled()
def times_scales(R: Matrix, s: Array) -> Matrix:
    """R diag(exp s) as a row-major 9-tuple."""
    s0, s1, s2 = math.exp(float(s[0])), math.exp(float(s[1])), math.exp(float(s[2]))
    return (R[0] * s0, R[1] * s1, R[2] * s2, R[3] * s0, R[4] * s1, R[5] * s2, R[6] * s0, R[7] * s1, R[8] * s2)


@compiled()
def to_camera(cam: Array, m: Triple) -> Triple:
    """The mean in camera coordinates."""
    x = cam[0] * m[0] + cam[1] * m[1] + cam[2] * m[2] + cam[9]
    y = cam[3] * m[0] + cam[4] * m[1] + cam[5] * m[2] + cam[10]
    z = cam[6] * m[0] + cam[7] * m[1] + cam[8] * m[2] + cam[11]
    return x, y, z


@compiled()
def footprint(cam: Array, x: float, y: float, z: float, M: Matrix, eps2d: float) -> Footprint:
    """The rows of U = J W and L = U M, their normal L0 x L1 and its length, and a, b, c and det of the blurred C."""
    u, v = min(max(x / z, cam[19]), cam[20]), min(max(y / z, cam[21]), cam[22])
    j0, j1 = cam[15] / z, cam[16] / z
    U0 = (j0 * (cam[0] - u * cam[6]), j0 * (cam[1] - u * cam[7]), j0 * (cam[2] - u * cam[8]))
    U1 = (j1 * (cam[3] - v * cam[6]), j1 * (cam[4] - v * cam[7]), j1 * (cam[5] - v * cam[8]))
    c0, c1, c2 = (M[0], M[3], M[6]), (M[1], M[4], M[7]), (M[2], M[5], M[8])
    L0 = (dot(U0, c0), dot(U0, c1), dot(U0, c2))
    L1 = (dot(U1, c0), dot(U1, c1), dot(U1, c2))
    normal = cross(L0, L1)
    square = dot(normal, normal)  # = a c - b^2 before the blur (Lagrange), without its cancellation
    a, b, c = dot(L0, L0), dot(L0, L1), dot(L1, L1)
    det = square + eps2d * (a + c) + eps2d * eps2d
    return U0, U1, L0, L1, normal, math.sqrt(square), a + eps2d, b, c + eps2d, det


@compiled()
def view_direction(cam: Array, m: Triple) -> tuple[Triple, float]:
    """Unit vector from the camera to the mean, and the distance."""
    dx, dy, dz = m[0] - cam[12], m[1] - cam[13], m[2] - cam[14]
    distance = math.sqrt(dx * dx + dy * dy + dz * dz)
    return (dx / distance, dy / distance, dz / distance), distance


@compiled()
def project_one(
    cam: Array, m: Triple, M: Matrix, logit: float, sh: Array, lens: Lens, Y: Array, row: Array
) -> int:  # fmt: skip
    """Write the splat of one Gaussian in one view; returns its radius in pixels, 0 where culled."""
    x, y, z = to_camera(cam, m)
    if not (z >= lens.near and z <= lens.far):
        return 0
    _, _, _, _, _, area, a, b, c, det = footprint(cam, x, y, z, M, lens.eps2d)
    if not (det > 0.0 and a + c < COVARIANCE_MAX):
        return 0
    opacity = 1.0 / (1.0 + math.exp(-logit))
    if lens.antialiased:
        opacity *= area / math.sqrt(det)
    if not opacity >= ALPHA_MIN:
        return 0
    px, py = cam[15] * x / z + cam[17], cam[16] * y / z + cam[18]
    reach = 2.0 * math.log(opacity / ALPHA_MIN)
    rx, ry = math.ceil(math.sqrt(reach * a)), math.ceil(math.sqrt(reach * c))
    if not (px + rx > 0.0 and px - rx < lens.width and py + ry > 0.0 and py - ry < lens.height):
        return 0
    d, _ = view_direction(cam, m)
    sh_basis(d[0], d[1], d[2], Y)
    for channel in range(3):
        colour = 0.5
        for k in range(len(Y)):
            colour += Y[k] * sh[k, channel]
        row[6 + channel] = max(colour, 0.0)
    row[0], row[1], row[2], row[3], row[4] = px, py, 0.5 * c / det, b / c, 0.5 / c
    row[5], row[9] = opacity, z
    reach = reach * MARGIN + 1e-3
    row[10], row[11] = math.sqrt(reach * a), math.sqrt(reach * c)
    return max(int(max(rx, ry)), 1)


@compiled(parallel=True)
def project(
    means: Array, quats: Array, scales: Array, logits: Array, sh: Array, cams: Array, lens: Lens,
    splats: Array, radii: Array,
) -> None:  # fmt: skip
    """Fill ``splats`` [B N, 12] and ``radii`` [B N]."""
    N, B, K = len(means), len(cams), sh.shape[1]
    for chunk in prange((N + CHUNK - 1) // CHUNK):
        Y = np.empty(K)
        for n in range(chunk * CHUNK, min(N, chunk * CHUNK + CHUNK)):
            R, _, _ = rotation(quats[n])
            M = times_scales(R, scales[n])
            m = (float(means[n, 0]), float(means[n, 1]), float(means[n, 2]))
            for b in range(B):
                i = b * N + n
                radii[i] = project_one(cams[b], m, M, float(logits[n]), sh[n], lens, Y, splats[i])


@compiled()
def shape_backward(f: Footprint, v_A: float, v_k: float, v_E: float, v_dimming: float) -> tuple[Triple, Triple]:
    """Gradients of the rows of L from those of A = 2 hA, k, E = 2 hE and of the antialiasing factor."""
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


@compiled()
def colour_backward(
    cam: Array, m: Triple, sh: Array, splat: Array, sums: Array, Y: Array, D: Array, v_sh: Array
) -> Triple:  # fmt: skip
    """Add to v_sh [K, 3] and return the gradient of the mean through the viewing direction."""
    d, distance = view_direction(cam, m)
    sh_basis(d[0], d[1], d[2], Y)
    sh_slopes(d[0], d[1], d[2], D)
    v0, v1, v2 = 0.0, 0.0, 0.0
    for channel in range(3):
        if splat[6 + channel] > 0.0:
            v = sums[6 + channel]
            for k in range(len(Y)):
                v_sh[k, channel] += v * Y[k]
                w = v * sh[k, channel]
                v0, v1, v2 = v0 + w * D[k, 0], v1 + w * D[k, 1], v2 + w * D[k, 2]
    radial = v0 * d[0] + v1 * d[1] + v2 * d[2]
    return (v0 - radial * d[0]) / distance, (v1 - radial * d[1]) / distance, (v2 - radial * d[2]) / distance


@compiled()
def view_backward(
    cam: Array, m: Triple, M: Matrix, sigmoid: float, splat: Array, sums: Array, lens: Lens, grad: Array
) -> None:  # fmt: skip
    """Add one view's part to grad: mean (3), M (9), logit (1), screen mean (2, overwritten)."""
    x, y, z = to_camera(cam, m)
    f = footprint(cam, x, y, z, M, lens.eps2d)
    U0, U1 = f[0], f[1]
    hA, k, hE = float(splat[2]), float(splat[3]), float(splat[4])
    v_px = -2.0 * hA * sums[1]
    v_py = -2.0 * hE * sums[2] - k * v_px
    v_opacity = -sums[0] / splat[5]
    dimming = f[5] / math.sqrt(f[9]) if lens.antialiased else 1.0
    grad[12] += v_opacity * dimming * sigmoid * (1.0 - sigmoid)
    v_dimming = v_opacity * sigmoid if lens.antialiased else 0.0
    v_L0, v_L1 = shape_backward(f, 0.5 * sums[3], -2.0 * hA * sums[4], 0.5 * sums[5], v_dimming)
    v_U0 = (dot((M[0], M[1], M[2]), v_L0), dot((M[3], M[4], M[5]), v_L0), dot((M[6], M[7], M[8]), v_L0))
    v_U1 = (dot((M[0], M[1], M[2]), v_L1), dot((M[3], M[4], M[5]), v_L1), dot((M[6], M[7], M[8]), v_L1))
    for i in range(3):
        for j in range(3):
            grad[3 + 3 * i + j] += U0[i] * v_L0[j] + U1[i] * v_L1[j]
    w2 = (cam[6], cam[7], cam[8])
    j0, j1 = cam[15] / z, cam[16] / z
    v_x, v_y = j0 * v_px, j1 * v_py
    v_z = sums[9] - (v_x * x + v_y * y + dot(v_U0, U0) + dot(v_U1, U1)) / z
    if cam[19] <= x / z <= cam[20]:  # not clamped to the field of view
        v_u = -j0 * dot(v_U0, w2) / z
        v_x, v_z = v_x + v_u, v_z - v_u * x / z
    if cam[21] <= y / z <= cam[22]:
        v_v = -j1 * dot(v_U1, w2) / z
        v_y, v_z = v_y + v_v, v_z - v_v * y / z
    for i in range(3):
        grad[i] += cam[i] * v_x + cam[3 + i] * v_y + cam[6 + i] * v_z
    grad[13], grad[14] = v_px, v_py


@compiled()
def rotation_backward(
    R: Matrix, unit: Quadruple, length: float, scales: Array, grad: Array, v_quat: Array, v_scale: Array
) -> None:  # fmt: skip
    """From the gradient of M = R S in grad[3:12] to those of the quaternion and of the log scales."""
    w, x, y, z = unit
    G = np.empty(9)
    for j in range(3):
        s = math.exp(float(scales[j]))
        v_scale[j] = s * (R[j] * grad[3 + j] + R[3 + j] * grad[6 + j] + R[6 + j] * grad[9 + j])
        G[j], G[3 + j], G[6 + j] = s * grad[3 + j], s * grad[6 + j], s * grad[9 + j]
    v_w = 2.0 * (x * (G[7] - G[5]) + y * (G[2] - G[6]) + z * (G[3] - G[1]))
    v_x = 2.0 * (y * (G[1] + G[3]) + z * (G[2] + G[6]) + w * (G[7] - G[5]) - 2.0 * x * (G[4] + G[8]))
    v_y = 2.0 * (x * (G[1] + G[3]) + z * (G[5] + G[7]) + w * (G[2] - G[6]) - 2.0 * y * (G[0] + G[8]))
    v_z = 2.0 * (x * (G[2] + G[6]) + y * (G[5] + G[7]) + w * (G[3] - G[1]) - 2.0 * z * (G[0] + G[4]))
    radial = w * v_w + x * v_x + y * v_y + z * v_z
    v_quat[0], v_quat[1] = (v_w - radial * w) / length, (v_x - radial * x) / length
    v_quat[2], v_quat[3] = (v_y - radial * y) / length, (v_z - radial * z) / length


@compiled(parallel=True)
def project_backward(
    means: Array, quats: Array, scales: Array, logits: Array, sh: Array, cams: Array, lens: Lens,
    splats: Array, starts: Array, tile_sums: Array,
    v_means: Array, v_quats: Array, v_scales: Array, v_logits: Array, v_sh: Array, v_screen: Array,
) -> None:  # fmt: skip
    """Fill the gradients (all zero before) from ``tile_sums``, rows starts[i]..starts[i + 1] for splat i."""
    N, B, K = len(means), len(cams), sh.shape[1]
    for chunk in prange((N + CHUNK - 1) // CHUNK):
        Y, D, v_sh_n, sums, grad = np.empty(K), np.empty((K, 3)), np.empty((K, 3)), np.empty(10), np.empty(15)
        for n in range(chunk * CHUNK, min(N, chunk * CHUNK + CHUNK)):
            R, unit, length = rotation(quats[n])
            M = times_scales(R, scales[n])
            m = (float(means[n, 0]), float(means[n, 1]), float(means[n, 2]))
            sigmoid = 1.0 / (1.0 + math.exp(-float(logits[n])))
            grad[:], v_sh_n[:] = 0.0, 0.0
            seen = False
            for b in range(B):
                i = b * N + n
                if starts[i] == starts[i + 1]:
                    continue
                seen = True
                sums[:] = 0.0
                for row in range(starts[i], starts[i + 1]):
                    for j in range(10):
                        sums[j] += tile_sums[row, j]
                v = colour_backward(cams[b], m, sh[n], splats[i], sums, Y, D, v_sh_n)
                view_backward(cams[b], m, M, sigmoid, splats[i], sums, lens, grad)
                grad[0], grad[1], grad[2] = grad[0] + v[0], grad[1] + v[1], grad[2] + v[2]
                v_screen[i, 0], v_screen[i, 1] = grad[13], grad[14]
            if seen:
                rotation_backward(R, unit, length, scales[n], grad, v_quats[n], v_scales[n])
                v_means[n, 0], v_means[n, 1], v_means[n, 2], v_logits[n] = grad[0], grad[1], grad[2], grad[12]
                v_sh[n] = v_sh_n
