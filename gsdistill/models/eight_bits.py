"""Weights in eight bits: half of what float16 takes, at an error far below that of a trained network's answers.

A row w_o of a matrix, or of a convolution's [out, in k k], is kept as whole numbers q_o = round(w_o / s_o) in -127..127
and one scale s_o = max |w_o| / 127. What has one dimension, such as biases, stays in float16. Of a weight ``a.weight``
the file has ``a.weight`` in int8 and ``a.weight.scale`` in float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["SCALE", "is_packed", "pack", "unpack"]

SCALE = ".scale"


def pack(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a network in eight bits."""
    packed: dict[str, Tensor] = {}
    for name, value in weights.items():
        if value.ndim < 2 or not value.is_floating_point():
            packed[name] = value.half() if value.is_floating_point() else value
            continue
        scale = value.float().flatten(1).abs().amax(1).clamp_min(1e-30) / 127
        packed[name] = (value.float() / _beside(scale, value)).round().to(torch.int8)
        packed[name + SCALE] = scale
    return packed


def is_packed(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights are in eight bits."""
    return any(name.endswith(SCALE) for name in weights)


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that :func:`pack` packed, in float16.

    Raises:
        KeyError: a weight lacks its scale.
    """
    weights = {}
    for name, value in packed.items():
        if value.dtype == torch.int8:
            weights[name] = (value.float() * _beside(packed[name + SCALE], value)).half()
        elif not name.endswith(SCALE):
            weights[name] = value
    return weights


def _beside(scale: Tensor, value: Tensor) -> Tensor:
    """The scales of rows in a shape that multiplies them."""
    return scale.reshape(-1, *[1] * (value.ndim - 1))
