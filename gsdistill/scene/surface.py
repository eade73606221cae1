"""Even samples of a surface of triangles, and the conversions between sRGB and linear light.

Faces are drawn in proportion to their area, by stratified draws along the summed areas, so that the number of points
on a face differs from its share by less than two. A uniform point of a triangle a b c from uniform r and s is
(1 - sqrt r) a + sqrt r (1 - s) b + sqrt r s c (R. Osada et al., Shape Distributions, 2002, section 4.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["SurfacePoints", "sample_surface", "to_linear", "to_srgb"]


@dataclass(frozen=True)
class SurfacePoints:
    """Places on triangles: which triangle, and where in it."""

    faces: Int[Tensor, "N"]  # numbers of the triangles
    weights: Float[Tensor, "N 3"]  # barycentric, of the triangle's three corners

    def of(self, corners: Float[Tensor, "F 3 C"]) -> Float[Tensor, "N C"]:
        """Interpolate values that are given at the corners of every triangle."""
        return (self.weights.to(corners)[:, :, None] * corners[self.faces]).sum(dim=1)


def sample_surface(corners: Float[Tensor, "F 3 3"], count: int, generator: torch.Generator) -> SurfacePoints:
    """Draw ``count`` places on triangles with the given corners, uniform by area.

    Raises:
        ValueError: there is no triangle, or the areas sum to zero or to something not finite.
    """
    a, b, c = corners.double().unbind(dim=1)
    summed = torch.linalg.cross(b - a, c - a).norm(dim=-1).cumsum(dim=0)
    if not (len(summed) and 0 < summed[-1] < math.inf):
        raise ValueError("the triangles have no area")
    places = (torch.arange(count) + torch.rand(count, generator=generator, dtype=torch.float64)) / count
    faces = torch.searchsorted(summed, places * summed[-1], right=True).clamp_max(len(summed) - 1)
    root, share = torch.rand(2, count, generator=generator, dtype=torch.float64).unbind()
    root = root.sqrt()
    return SurfacePoints(faces, torch.stack([1 - root, root * (1 - share), root * share], dim=-1))


def to_srgb(linear: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Encode linear light in 0..1 as sRGB, the space of pictures and splats (IEC 61966-2-1)."""
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)


def to_linear(srgb: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Decode sRGB in 0..1 to linear light, the inverse of :func:`to_srgb`."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
