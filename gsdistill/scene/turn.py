"""A splat in other axes: means, rotations and view-dependent colours turned together.

With an orthogonal M, a mean m becomes M m and a covariance R S^2 R^T becomes (M R) S^2 (M R)^T. Where M mirrors, M R is
no rotation but -M R is, and it gives the same covariance: R' = det(M) M R.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.frames import MATRICES, Frame
from gsdistill.core.structs import Gaussians
from gsdistill.renderer.harmonics import sh_rotation

__all__ = ["frame_matrix", "from_frame", "to_frame", "turned"]


def frame_matrix(frame: Frame) -> Float[Tensor, "3 3"]:
    """The matrix that takes coordinates of our world to those of ``frame``, float64."""
    return torch.tensor(MATRICES[frame], dtype=torch.float64)


def to_frame(gaussians: Gaussians, frame: Frame) -> Gaussians:
    """Return a splat of our world in the axes of ``frame``."""
    return gaussians if frame == "world" else turned(gaussians, frame_matrix(frame))


def from_frame(gaussians: Gaussians, frame: Frame) -> Gaussians:
    """Return a splat that is in the axes of ``frame`` in those of our world."""
    return gaussians if frame == "world" else turned(gaussians, frame_matrix(frame).T)


def turned(gaussians: Gaussians, matrix: Float[Tensor, "3 3"]) -> Gaussians:
    """Return the splat turned by an orthogonal ``matrix``, which may mirror; means keep their type and device.

    A matrix of entries 0 and +-1 changes means without rounding.
    """
    like, exact = gaussians.means, matrix.double().to(gaussians.means.device)
    colours = sh_rotation(matrix.cpu(), gaussians.sh_degree).to(exact)
    return replace(
        gaussians,
        means=(like.double() @ exact.T).to(like),
        quats=_product(_quaternion(matrix).to(exact), gaussians.quats.double()).to(gaussians.quats),
        sh=torch.einsum("jk,nkc->njc", colours, gaussians.sh.double()).to(gaussians.sh).contiguous(),
    )


def _quaternion(matrix: Float[Tensor, "3 3"]) -> Float[Tensor, "4"]:
    """The quaternion w x y z of det(M) M."""
    from scipy.spatial.transform import Rotation

    proper = (torch.linalg.det(matrix.double()).sign() * matrix.double()).cpu().numpy()
    x, y, z, w = Rotation.from_matrix(proper).as_quat()
    return torch.tensor([w, x, y, z], dtype=torch.float64)


def _product(p: Float[Tensor, "4"], q: Float[Tensor, "N 4"]) -> Float[Tensor, "N 4"]:
    """Hamilton's product of p with each row of q."""
    w, v, a, u = p[0], p[1:], q[:, :1], q[:, 1:]
    return torch.cat([w * a - u @ v[:, None], w * u + a * v + torch.linalg.cross(v.expand_as(u), u)], dim=1)
