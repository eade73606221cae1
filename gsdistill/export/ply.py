"""The INRIA PLY layout, which every splat viewer reads.

x y z nx ny nz f_dc_0..2 f_rest_* opacity scale_0..2 rot_0..3; float32, binary little endian; normals zero. f_rest is
channel-major: with K coefficients, f_rest_{c (K - 1) + k - 1} is coefficient k of channel c. Scales and opacities are
raw parameters (logarithm, logit), and rotations are unit quaternions w x y z. Comments in the header name the axes, so
that gsdistill can read the file back into its own, and the RenderOptions that are not the usual ones.
Source: B. Kerbl et al., 3D Gaussian Splatting for Real-Time Radiance Field Rendering, 2023, reference code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.frames import Frame
from gsdistill.core.structs import Gaussians
from gsdistill.export.base import Writer
from gsdistill.scene.ply import FRAME_COMMENT, OPTIONS_COMMENT

__all__ = ["Ply", "comments_of", "inria_columns"]


@dataclass(frozen=True)
class Ply(Writer):
    """The INRIA PLY layout."""

    read_by_us: ClassVar[bool] = True

    def encode(self, gaussians: Gaussians, draft: Path) -> list[str]:
        """Write all parameters bit for bit."""
        from plyfile import PlyData, PlyElement

        names, table = inria_columns(gaussians)
        vertices = table.numpy().view(np.dtype([(name, "f4") for name in names]))[:, 0]
        comments = comments_of(gaussians, self.axes)
        PlyData([PlyElement.describe(vertices, "vertex")], byte_order="<", comments=comments).write(str(draft))
        return []


def comments_of(gaussians: Gaussians, axes: Frame) -> list[str]:
    """The comments of a header: the axes, and the RenderOptions that are not the usual ones, as JSON."""
    return [f"{FRAME_COMMENT} {axes}", f"{OPTIONS_COMMENT} {json.dumps(gaussians.options.unusual())}"]


def inria_columns(gaussians: Gaussians) -> tuple[list[str], Float[Tensor, "N P"]]:
    """The P property names in the order of the file, and their values in the columns of one contiguous tensor."""
    rest = gaussians.sh[:, 1:].transpose(1, 2).flatten(1)
    blocks = {
        ("x", "y", "z"): gaussians.means,
        ("nx", "ny", "nz"): torch.zeros_like(gaussians.means),
        _numbered("f_dc", 3): gaussians.sh[:, 0],
        _numbered("f_rest", rest.shape[1]): rest,
        ("opacity",): gaussians.opacities[:, None],
        _numbered("scale", 3): gaussians.scales,
        _numbered("rot", 4): gaussians.quats,
    }
    return [name for names in blocks for name in names], torch.cat(list(blocks.values()), dim=1)


def _numbered(stem: str, count: int) -> tuple[str, ...]:
    return tuple(f"{stem}_{i}" for i in range(count))
