"""The colour of points on a surface, from the photographs that see them.

A photograph counts with max(0, n . v)^2, n the surface's normal and v towards the camera, if the point lies not behind
what it shows. The mean is taken twice: the second time with weights divided by 1 + (distance from the first / 0.1)^2,
which takes a stray photograph out (one step of iterated reweighting, a Cauchy estimate). A point that none sees has the
mean of what all of them show in its place.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.mesh.photographs import Photographs

__all__ = ["colours"]

BEHIND = 0.05  # of the unit ball: a point this far behind the mean depth is hidden by something else
UNSEEN = 1e-6
STRAY = 0.1
POINTS = 1 << 15  # at once


def colours(
    photographs: Photographs, points: Float[Tensor, "M 3"], normals: Float[Tensor, "M 3"]
) -> Float[Tensor, "M 3"]:
    """Return the colours of points of the unit ball with outward unit normals: sRGB as in the pictures, 0..1."""
    pairs = zip(points.split(POINTS), normals.split(POINTS), strict=True)
    return torch.cat([_colours(photographs, some, outward) for some, outward in pairs])


def _colours(
    photographs: Photographs, points: Float[Tensor, "M 3"], normals: Float[Tensor, "M 3"]
) -> Float[Tensor, "M 3"]:
    weights, values = [], []
    for glimpse in photographs.glimpses(points):
        facing = (normals * glimpse.rays).sum(dim=-1).clamp_min(0.0).square()
        visible = (glimpse.alphas > 0.5) & (glimpse.depths < glimpse.seen + BEHIND)
        weights.append(torch.where(visible, facing, 0.0) + UNSEEN * glimpse.alphas)
        values.append(glimpse.colours)
    weight, value = torch.stack(weights)[..., None], torch.stack(values)
    first = _mean(weight, value)
    strayed = (value - first).norm(dim=-1, keepdim=True) / STRAY
    return _mean(weight / (1.0 + strayed.square()), value).clamp(0.0, 1.0)


def _mean(weight: Float[Tensor, "B M 1"], value: Float[Tensor, "B M 3"]) -> Float[Tensor, "M 3"]:
    return (weight * value).sum(dim=0) / weight.sum(dim=0).clamp_min(1e-12)
