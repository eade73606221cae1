"""Real spherical harmonics: their values, and how coefficients change with the axes.

A colour that depends on the view is f(d) = sum_k c_k Y_k(d). In axes turned by an orthogonal matrix M it is f'(M d) =
f(d), so that Y(M d)^T c' = Y(d)^T c for all d. The functions of one degree span a space that rotations and reflections
keep, so c' = D c with a block-diagonal D (the real Wigner matrices), which a few directions determine exactly.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["sh_basis", "sh_rotation"]


def sh_basis(directions: Float[Tensor, "N 3"], degree: int) -> Float[Tensor, "N K"]:
    """Real spherical harmonics of unit ``directions``, ``degree`` 0..3, ordered as in 3D Gaussian Splatting."""
    x, y, z = directions.unbind(-1)
    bands = [
        [torch.full_like(x, 0.28209479177387814)],
        [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x],
        [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (3 * z * z - 1),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ],
        [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (5 * z * z - 1),
            0.3731763325901154 * z * (5 * z * z - 3),
            -0.4570457994644658 * x * (5 * z * z - 1),
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ],
    ]
    return torch.stack([value for band in bands[: degree + 1] for value in band], -1)


def sh_rotation(matrix: Float[Tensor, "3 3"], degree: int) -> Float[Tensor, "K K"]:
    """D of the module's docstring, float64, for an orthogonal ``matrix`` M, which may mirror, and ``degree`` 0..3.

    It is rounded to 14 decimals, so that zeros are exact, and the solver's last bits, which depend on where its memory
    lies, do not make two readings of one file differ.
    """
    directions = torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    directions = directions / directions.norm(dim=-1, keepdim=True)
    before, after = sh_basis(directions, degree), sh_basis(directions @ matrix.double().T, degree)
    bands = [slice(band * band, (band + 1) ** 2) for band in range(degree + 1)]
    blocks = torch.block_diag(*(torch.linalg.lstsq(after[:, k], before[:, k]).solution for k in bands))
    return blocks.round(decimals=14)
