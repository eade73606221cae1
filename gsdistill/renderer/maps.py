"""Pictures that are made of the depths of a render: how near the surface is, where it is, and which way it faces.

The depth of a pixel is the mean of the camera's z over what it sees: ``depths`` of a render over its opacity.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from gsdistill.core.structs import Cameras, Render

__all__ = ["SOLID", "disparities", "normal_pictures", "surface_points"]

LEAST = 1e-6  # least depth times opacity of a pixel that is divided by; a renderer draws nothing so near
SOLID = 0.5  # opacity above which a pixel shows a surface


def disparities(render: Render) -> Float[Tensor, "B H W 1"]:
    """How near the surface is: the opacity over the mean depth, 0 where there is nothing, 1 at each view's nearest.

    As LucidDreamer's depth picture, whose constants for its own renderer (10 added to the depth of what is opaque, the
    smallest value of the background taken away) are left out: nothing is infinitely far here, and so 0 by itself.
    """
    near = render.alphas.square() / render.depths.clamp_min(LEAST)
    return near / near.amax((1, 2, 3), keepdim=True).detach().clamp_min(LEAST)


def normal_pictures(render: Render, cameras: Cameras) -> Float[Tensor, "B H W 3"]:
    """Which way the surface faces, as colours: (n + 1) / 2 of its unit normal n in world axes, times the opacity.

    It is black where the opacity is SOLID or less. So threestudio's rasteriser shows a mesh to the prior (Fantasia3D,
    the geometry stages of ProlificDreamer and Consistent3D): world axes, the same range, on black. Here n is the cross
    product of differences between the surface points of the pixels beside, below and above; a neighbour that is not
    solid is left out. The picture is differentiable by depths and opacities, while which pixels are solid is given.
    """
    solid = render.alphas > SOLID
    points = surface_points((render.depths / render.alphas.clamp_min(SOLID))[..., 0], cameras)
    towards = torch.linalg.cross(_differences(points, solid, 1), _differences(points, solid, 2))
    faced = solid & (towards.detach().abs().amax(-1, keepdim=True) > 0)  # else the normal has no derivative
    normals = normalize(torch.where(faced, towards, 1.0), dim=-1, eps=0.0)
    return torch.where(faced, 0.5 * (normals + 1.0) * render.alphas, 0.0)


def surface_points(depths: Float[Tensor, "B H W"], cameras: Cameras) -> Float[Tensor, "B H W 3"]:
    """The points of the world that lie at the given ``depths`` (camera z, world units) behind the pixels' centres."""
    _, height, width = depths.shape
    K = cameras.Ks.to(depths)[..., None, None]
    column, row = (torch.arange(n, device=depths.device, dtype=depths.dtype) + 0.5 for n in (width, height))
    x = depths * ((column - K[:, 0, 2]) / K[:, 0, 0])
    y = depths * ((row[:, None] - K[:, 1, 2]) / K[:, 1, 1])
    view = cameras.viewmats.to(depths)
    seen = torch.stack([x, y, depths], dim=-1) - view[:, None, None, :3, 3]
    return torch.einsum("bhwi,bij->bhwj", seen, view[:, :3, :3])


def _differences(
    points: Float[Tensor, "B H W 3"], solid: Bool[Tensor, "B H W 1"], dim: int
) -> Float[Tensor, "B H W 3"]:
    """The next point along ``dim`` minus the one before; the pixel's own stands for one not solid or outside."""
    place = torch.arange(points.shape[dim], device=points.device)

    def beside(step: int) -> Tensor:
        there = (place + step).clamp(0, len(place) - 1)
        return torch.where(solid.index_select(dim, there), points.index_select(dim, there), points)

    return beside(1) - beside(-1)
