"""Pictures of a mesh with its own colours: the nearest triangle at every place of a grid of rays, without any light.

A triangle a, b, c in front of a pinhole camera covers the points of the image whose weights w_a, w_b, w_c (areas of the
image) are not negative. Depth z and weights u on the triangle itself follow from them (perspective-correct):
1 / z = sum w_i / z_i and u_i = z w_i / z_i. What no ray of the 3 x 3 of a pixel meets is not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.structs import Cameras
from gsdistill.renderer.meshes import cover
from gsdistill.scene.mesh import Part, painted
from gsdistill.scene.surface import SurfacePoints

__all__ = ["Drawn", "draw"]

RAYS = 3  # along each side of a pixel; odd, so that one goes through its middle


@dataclass(frozen=True)
class Drawn:
    """A mesh as B cameras see it."""

    body: Float[Tensor, "B H W 3"]  # colour times alpha, sRGB in 0..1
    alpha: Float[Tensor, "B H W 1"]  # share of a pixel's rays that meet it
    depth: Float[Tensor, "B H W 1"]  # along the camera's axis, of the ray through the middle; infinite where it misses


def draw(parts: Sequence[Part], cameras: Cameras) -> Drawn:
    """Draw the parts of a mesh, whose corners are in world axes and units."""
    corners = torch.cat([part.corners for part in parts])
    drawn = [
        _draw(parts, corners, view, k, (cameras.height, cameras.width))
        for view, k in zip(cameras.viewmats.double(), cameras.Ks.double(), strict=True)
    ]
    body, alpha, depth = (torch.stack(planes) for planes in zip(*drawn, strict=True))
    return Drawn(body, alpha, depth)


def _draw(
    parts: Sequence[Part],
    corners: Float[Tensor, "F 3 3"],
    view: Float[Tensor, "4 4"],
    k: Float[Tensor, "3 3"],
    size: tuple[int, int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Body, alpha and depth of one view."""
    triangles = np.arange(3 * len(corners), dtype=np.int32).reshape(-1, 3)
    hits = cover(corners.reshape(-1, 3).numpy(), triangles, view.numpy(), k.numpy(), size, RAYS)
    faces = torch.from_numpy(hits.faces).long()
    hit = faces >= 0
    rows, columns = torch.nonzero(hit, as_tuple=True)
    local = corners[faces[hit]] @ view[:3, :3].T + view[:3, 3]
    rays = torch.stack([(columns + 0.5) / RAYS - k[0, 2], (rows + 0.5) / RAYS - k[1, 2]], 1) / k.diagonal()[:2]
    planes = torch.zeros(*faces.shape, 4, dtype=torch.float64)
    planes[..., :3][hit] = painted(parts, SurfacePoints(faces[hit], _weights(local, rays)))
    planes[..., 3] = hit
    pooled = torch.nn.functional.avg_pool2d(planes.permute(2, 0, 1), RAYS).permute(1, 2, 0).float()
    middle = torch.from_numpy(hits.nearness)[RAYS // 2 :: RAYS, RAYS // 2 :: RAYS, None]
    return pooled[..., :3], pooled[..., 3:], (1.0 / middle).float()


def _weights(local: Float[Tensor, "N 3 3"], rays: Float[Tensor, "N 2"]) -> Float[Tensor, "N 3"]:
    """Where rays (x / z, y / z) meet triangles with these corners in the camera's axes, as weights of the corners."""
    x, y = (local[..., :2] / local[..., 2:] - rays[:, None]).unbind(-1)
    areas = x.roll(-1, 1) * y.roll(-2, 1) - y.roll(-1, 1) * x.roll(-2, 1)
    weights = areas / local[..., 2]
    return weights / weights.sum(1, keepdim=True)
