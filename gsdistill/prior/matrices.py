"""Cameras as 16 numbers: the camera-to-world matrix, flattened by rows, as MVDream and the LoRA of VSD are told it.

The camera's axes are Blender's (x right, y up, looking along -z), and the world's z is up.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.structs import Cameras

__all__ = ["camera_matrices"]


def camera_matrices(cameras: Cameras, unit: bool = False) -> Float[Tensor, "B 16"]:
    """Camera-to-world matrices, flattened by rows; with ``unit`` the position is scaled to length 1."""
    turns, shifts = cameras.viewmats[:, :3, :3], cameras.viewmats[:, :3, 3:]
    right, down, forward = turns.unbind(1)
    position = -(turns * shifts).sum(1)
    if unit:
        position = torch.nn.functional.normalize(position, dim=1)
    # The last row, 0 0 0 1, is taken from the view matrix: Python numbers would be sent, and waited for, in each step.
    return torch.cat([torch.stack([right, -down, -forward, position], 2), cameras.viewmats[:, 3:]], 1).flatten(1)
