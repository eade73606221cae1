"""Pictures of a mesh with its own colours: the nearest triangle at every place of a grid of rays, without any light.

A triangle a, b, c in front of a pinhole camera covers the points of the image whose weights w_a, w_b, w_c (areas of the
image) are not negative. Depth z and weights u on the triangle itself follow from them (perspective-correct):
1 / z = sum w_i / z_i and u_i = z w_i / z_i. Both sides of a triangle are shown. One with a corner nearer to the camera
than 0.01 is left out; one that no ray of the 3 x 3 of a pixel meets is not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from gsdistill.core.structs import Cameras
from gsdistill.disk.compiled import compiled
from gsdistill.scene.mesh import Part, painted
from gsdistill.scene.surface import SurfacePoints

__all__ = ["Drawn", "draw"]

RAYS = 3  # along each side of a pixel; odd, so that one goes through its middle
NEAR = 0.01


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
        _draw(parts, corners @ view[:3, :3].T + view[:3, 3], k, (cameras.height, cameras.width))
        for view, k in zip(cameras.viewmats.double(), cameras.Ks.double(), strict=True)
    ]
    body, alpha, depth = (torch.stack(planes) for planes in zip(*drawn, strict=True))
    return Drawn(body, alpha, depth)


def _draw(
    parts: Sequence[Part], corners: Float[Tensor, "F 3 3"], k: Float[Tensor, "3 3"], size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Body, alpha and depth of one view of corners in the camera's axes."""
    height, width = size[0] * RAYS, size[1] * RAYS
    faces, depths = np.full((height, width), -1), np.full((height, width), np.inf)
    weights = np.zeros((height, width, 3))
    lens = (k[[0, 1, 0, 1], [0, 1, 2, 2]] * RAYS).numpy()
    _cover(np.ascontiguousarray(corners.numpy()), lens, NEAR, faces, depths, weights)
    hit = torch.from_numpy(faces >= 0)
    planes = torch.zeros(height, width, 4, dtype=torch.float64)
    planes[hit] = torch.cat(
        [
            painted(parts, SurfacePoints(torch.from_numpy(faces)[hit], torch.from_numpy(weights)[hit])),
            torch.ones(int(hit.sum()), 1, dtype=torch.float64),
        ],
        dim=1,
    )
    pooled = torch.nn.functional.avg_pool2d(planes.permute(2, 0, 1), RAYS).permute(1, 2, 0).float()
    middle = torch.from_numpy(depths)[RAYS // 2 :: RAYS, RAYS // 2 :: RAYS, None].float()
    return pooled[..., :3], pooled[..., 3:], middle


@compiled(fast=False)
def _cover(
    corners: NDArray[np.float64],
    lens: NDArray[np.float64],
    near: float,
    faces: NDArray[np.int64],
    depths: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> None:
    """Note at each place of the image the nearest triangle of ``corners`` [F, 3, 3], its depth, and where in it."""
    rows, columns = faces.shape
    x, y = np.empty(3), np.empty(3)
    for f in range(corners.shape[0]):
        z0, z1, z2 = corners[f, 0, 2], corners[f, 1, 2], corners[f, 2, 2]
        if not min(z0, z1, z2) >= near:
            continue
        for i in range(3):  # in pixels from the middle of the first one
            x[i] = corners[f, i, 0] / corners[f, i, 2] * lens[0] + lens[2] - 0.5
            y[i] = corners[f, i, 1] / corners[f, i, 2] * lens[1] + lens[3] - 0.5
        area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])
        if area == 0.0 or max(x.max(), y.max()) < 0.0 or x.min() > columns - 1 or y.min() > rows - 1:
            continue
        for r in range(max(0, int(np.ceil(y.min()))), int(min(rows - 1.0, np.floor(y.max()))) + 1):
            for c in range(max(0, int(np.ceil(x.min()))), int(min(columns - 1.0, np.floor(x.max()))) + 1):
                w1 = ((c - x[0]) * (y[2] - y[0]) - (r - y[0]) * (x[2] - x[0])) / area
                w2 = ((x[1] - x[0]) * (r - y[0]) - (y[1] - y[0]) * (c - x[0])) / area
                w0 = 1.0 - w1 - w2
                if min(w0, w1, w2) < -1e-9:
                    continue
                z = 1.0 / (w0 / z0 + w1 / z1 + w2 / z2)
                if z < depths[r, c]:
                    faces[r, c], depths[r, c] = f, z
                    weights[r, c, 0], weights[r, c, 1], weights[r, c, 2] = z * w0 / z0, z * w1 / z1, z * w2 / z2
