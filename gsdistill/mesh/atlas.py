"""A texture atlas: a closed surface cut into charts (xatlas), laid flat, and which place of it each texel shows.

u runs to the right and v up, both 0..1; texel (row r, column c) of a picture of side S has its centre at
u = (c + 1/2) / S, v = 1 - (r + 1/2) / S.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from gsdistill.mesh._kernels import cover
from gsdistill.mesh.solid import Surface
from gsdistill.scene.surface import SurfacePoints

__all__ = ["Atlas", "Texels", "filled", "texels", "unfolded"]

GAP = 4  # texels between charts


@dataclass(frozen=True)
class Atlas:
    """A surface whose vertices are doubled along the cuts."""

    origin: Int[Tensor, "V"]  # the vertex of the surface that each vertex is
    faces: Int[Tensor, "F 3"]
    uv: Float[Tensor, "V 2"]


@dataclass(frozen=True)
class Texels:
    """The texels that show a place of the surface."""

    rows: Int[Tensor, "M"]
    columns: Int[Tensor, "M"]
    places: SurfacePoints


def unfolded(surface: Surface, side: int) -> Atlas:
    """Cut and lay flat, for a texture of ``side`` texels."""
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(surface.vertices.numpy(), surface.faces.numpy().astype(np.uint32))
    charts, pack = xatlas.ChartOptions(), xatlas.PackOptions()
    charts.max_cost, charts.max_chart_area = 8.0, 0.3  # few charts, none that bends so far that it is cut up again
    pack.resolution, pack.padding = side, GAP
    atlas.generate(charts, pack)
    origin, faces, uv = (torch.from_numpy(values.copy()) for values in atlas[0])
    return Atlas(origin.long(), faces.long(), uv)


def texels(atlas: Atlas, side: int) -> Texels:
    """Return the texels whose centres lie in a triangle of the atlas."""
    corners = atlas.uv[atlas.faces].double().numpy()
    flat = np.stack([corners[..., 0] * side - 0.5, (1.0 - corners[..., 1]) * side - 0.5], axis=-1)
    faces, weights = np.full((side, side), -1, dtype=np.int64), np.zeros((side, side, 3))
    cover(flat, faces, weights)
    rows, columns = np.nonzero(faces >= 0)
    places = SurfacePoints(torch.from_numpy(faces[rows, columns]), torch.from_numpy(weights[rows, columns]))
    return Texels(torch.from_numpy(rows), torch.from_numpy(columns), places)


def filled(found: Texels, colours: Float[Tensor, "M 3"], side: int) -> NDArray[np.uint8]:
    """Return the picture [side, side, 3]: texels between charts take the nearest chart's colour, so no seam shows."""
    from scipy.ndimage import distance_transform_edt

    picture, empty = np.zeros((side, side, 3), dtype=np.uint8), np.ones((side, side), dtype=bool)
    picture[found.rows, found.columns] = colours.mul(255.0).round().to(torch.uint8).numpy()
    empty[found.rows, found.columns] = False
    rows, columns = np.asarray(distance_transform_edt(empty, return_distances=False, return_indices=True))
    return picture[rows, columns]
