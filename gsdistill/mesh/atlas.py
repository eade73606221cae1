"""A texture atlas: a closed surface cut into charts (xatlas), laid flat, and which place of it each texel shows.

u runs to the right and v up, both 0..1; texel (row r, column c) of a picture of side S has its centre at
u = (c + 1/2) / S, v = 1 - (r + 1/2) / S.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from gsdistill.core.errors import OutputError
from gsdistill.mesh._kernels import cover
from gsdistill.mesh.solid import Surface
from gsdistill.scene.surface import SurfacePoints

__all__ = ["Atlas", "Texels", "filled", "texels", "unfolded"]

GAP = 4  # texels between charts at least, beside those that a chart's edge touches
FULL = 0.5  # of the texture that triangles take, at first: charts are seldom packed closer
SHRINK = 0.98  # a little more than it takes, for gaps do not shrink


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
    """Cut, lay flat, and pack the charts as large as a picture of ``side`` texels holds them, ``GAP`` texels apart.

    Raises:
        OutputError: they have less than a texel there for four vertices, whose own colours would show much more.
    """
    origin, faces, flat = _cut(surface)
    a, b, c = flat[faces].unbind(dim=1)
    area = float(torch.linalg.det(torch.stack([b - a, c - a], dim=1)).abs().sum()) / 2.0
    scale = side * math.sqrt(FULL / area)  # texels per unit
    while 4.0 * scale**2 * area > len(surface.vertices):
        packed, width = _packed(flat * scale, faces)
        if width <= side:
            return Atlas(origin, faces, packed / side)
        scale *= SHRINK * side / width
    enough = max(2 * side, 1 << math.ceil(math.log2(2.0 * math.sqrt(len(surface.vertices)))))
    raise OutputError(
        f"a texture of {side} x {side} pixels is too small for a mesh of {len(surface.vertices):,} vertices: take "
        f"meshing.texture {enough}, or none for colours at the vertices, or a lower meshing.resolution"
    )


def _cut(surface: Surface) -> tuple[Int[Tensor, "V"], Int[Tensor, "F 3"], Float[Tensor, "V 2"]]:
    """The vertex of the surface that each vertex of the charts is, their triangles, and their places in a plane.

    Lengths are nearly those of the surface.
    """
    import xatlas

    charts = xatlas.ChartOptions()
    charts.max_cost, charts.max_chart_area = 8.0, 0.3  # few charts, none that bends so far that it is cut up again
    atlas = xatlas.Atlas()
    atlas.add_mesh(surface.vertices.numpy(), surface.faces.numpy().astype(np.uint32))
    atlas.generate(charts)
    origin, faces, uv = (torch.from_numpy(values.copy()) for values in atlas[0])
    return origin.long(), faces.long(), uv.double() * torch.tensor([atlas.width, atlas.height]) / atlas.texels_per_unit


def _packed(flat: Float[Tensor, "V 2"], faces: Int[Tensor, "F 3"]) -> tuple[Float[Tensor, "V 2"], int]:
    """Move and turn charts until they lie side by side: their places, in texels, and the side of the square they fill.

    To xatlas a texture's size is a wish, and a scale is kept. Charts that are laid flat are quick to pack.
    """
    import xatlas

    pack = xatlas.PackOptions()
    pack.texels_per_unit, pack.padding = 1.0, GAP // 2
    atlas = xatlas.Atlas()
    atlas.add_uv_mesh(flat.float().numpy(), faces.numpy().astype(np.uint32))
    atlas.generate(pack_options=pack)
    origin, _, uv = (torch.from_numpy(values.copy()) for values in atlas[0])
    size = torch.tensor([atlas.width, atlas.height])
    return torch.empty_like(flat).index_copy(0, origin.long(), uv.double() * size), int(size.max())


def texels(atlas: Atlas, side: int) -> Texels:
    """Return the texels whose centres lie in a triangle of the atlas."""
    corners = atlas.uv[atlas.faces].double().numpy()
    flat = np.stack([corners[..., 0] * side - 0.5, (1.0 - corners[..., 1]) * side - 0.5], axis=-1)
    faces, weights = np.full((side, side), -1, dtype=np.int64), np.zeros((side, side, 3))
    cover(flat, faces, weights)
    rows, columns = np.nonzero(faces >= 0)
    places = SurfacePoints(torch.from_numpy(faces[rows, columns]), torch.from_numpy(weights[rows, columns]))
    return Texels(torch.from_numpy(rows), torch.from_numpy(columns), places)


def filled(pixels: Texels, colours: Float[Tensor, "M 3"], side: int) -> NDArray[np.uint8]:
    """Return the picture [side, side, 3]: texels between charts take the nearest chart's colour, so no seam shows."""
    from scipy.ndimage import distance_transform_edt

    picture, empty = np.zeros((side, side, 3), dtype=np.uint8), np.ones((side, side), dtype=bool)
    picture[pixels.rows, pixels.columns] = colours.mul(255.0).round().to(torch.uint8).numpy()
    empty[pixels.rows, pixels.columns] = False
    rows, columns = np.asarray(distance_transform_edt(empty, return_distances=False, return_indices=True))
    return picture[rows, columns]
