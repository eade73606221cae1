"""The colours of points on a surface, from the photographs that show them.

A photograph has the weight max(0, n . v)^2, with n the normal of the surface and v the direction to the camera, unless
the point lies behind what the photograph shows. The weighted mean is computed twice, the second time with weights
divided by 1 + (distance from the first mean / 0.1)^2, which reduces the influence of outliers (one step of iteratively
reweighted least squares, a Cauchy estimate). A point that no photograph shows gets the mean of all of them there.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.mesh.photographs import Photographs

__all__ = ["colours"]

BEHIND = 0.05  # units of the unit ball: a point this far behind the mean depth is hidden
UNSEEN = 1e-6  # weight of photographs that do not see a point, which decides only if none does
STRAY = 0.1  # distance of colours, 0..1 each, at which a weight is halved
POINTS = 1 << 15  # computed at once


def colours(
    photographs: Photographs, points: Float[Tensor, "M 3"], normals: Float[Tensor, "M 3"]
) -> Float[Tensor, "M 3"]:
    """The colours (sRGB as in the photographs, 0..1) of points in the unit ball with outward unit normals."""
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
