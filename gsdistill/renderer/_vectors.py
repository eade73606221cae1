"""Kernels on 3-vectors: products, and real spherical harmonics up to degree 3 as 3D Gaussian Splatting orders them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from gsdistill.disk.compiled import compiled

Triple: TypeAlias = tuple[float, float, float]


@compiled(inline=True)
def dot(a: Triple, b: Triple) -> float:
    """Inner product of 3-tuples."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@compiled(inline=True)
def cross(a: Triple, b: Triple) -> Triple:
    """Vector product of 3-tuples."""
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


@compiled(inline=True)
def combined(p: float, a: Triple, q: float, b: Triple, c: Triple) -> Triple:
    """Return p a + q b + c."""
    return (p * a[0] + q * b[0] + c[0], p * a[1] + q * b[1] + c[1], p * a[2] + q * b[2] + c[2])


@compiled(inline=True)
def sh_basis(x: float, y: float, z: float, Y: np.ndarray) -> None:
    """Fill Y [K] with the real spherical harmonics of a unit direction."""
    Y[0] = 0.28209479177387814
    if len(Y) > 1:
        Y[1], Y[2], Y[3] = -0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x
    if len(Y) > 4:
        Y[4], Y[5] = 1.0925484305920792 * x * y, -1.0925484305920792 * y * z
        Y[6] = 0.31539156525252005 * (3.0 * z * z - 1.0)
        Y[7], Y[8] = -1.0925484305920792 * x * z, 0.5462742152960396 * (x * x - y * y)
    if len(Y) > 9:
        Y[9] = -0.5900435899266435 * y * (3.0 * x * x - y * y)
        Y[10] = 2.890611442640554 * x * y * z
        Y[11] = -0.4570457994644658 * y * (5.0 * z * z - 1.0)
        Y[12] = 0.3731763325901154 * z * (5.0 * z * z - 3.0)
        Y[13] = -0.4570457994644658 * x * (5.0 * z * z - 1.0)
        Y[14] = 1.445305721320277 * z * (x * x - y * y)
        Y[15] = -0.5900435899266435 * x * (x * x - 3.0 * y * y)


@compiled(inline=True)
def sh_slopes(x: float, y: float, z: float, D: np.ndarray) -> None:
    """Fill D [K, 3] with the derivatives of :func:`sh_basis` by x, y and z."""
    D[:] = 0.0
    if len(D) > 1:
        D[1, 1], D[2, 2], D[3, 0] = -0.4886025119029199, 0.4886025119029199, -0.4886025119029199
    if len(D) > 4:
        D[4, 0], D[4, 1] = 1.0925484305920792 * y, 1.0925484305920792 * x
        D[5, 1], D[5, 2] = -1.0925484305920792 * z, -1.0925484305920792 * y
        D[6, 2] = 1.8923493915151202 * z
        D[7, 0], D[7, 2] = -1.0925484305920792 * z, -1.0925484305920792 * x
        D[8, 0], D[8, 1] = 1.0925484305920792 * x, -1.0925484305920792 * y
    if len(D) > 9:
        D[9, 0], D[9, 1] = -3.540261539559861 * x * y, -1.7701307697799304 * (x * x - y * y)
        D[10, 0], D[10, 1], D[10, 2] = 2.890611442640554 * y * z, 2.890611442640554 * x * z, 2.890611442640554 * x * y
        D[11, 1], D[11, 2] = -0.4570457994644658 * (5.0 * z * z - 1.0), -4.570457994644658 * y * z
        D[12, 2] = 1.1195289977703462 * (5.0 * z * z - 1.0)
        D[13, 0], D[13, 2] = -0.4570457994644658 * (5.0 * z * z - 1.0), -4.570457994644658 * x * z
        D[14, 0], D[14, 1] = 2.890611442640554 * x * z, -2.890611442640554 * y * z
        D[14, 2] = 1.445305721320277 * (x * x - y * y)
        D[15, 0], D[15, 1] = -1.7701307697799304 * (x * x - y * y), 3.540261539559861 * x * y
