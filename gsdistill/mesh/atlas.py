"""A texture atlas: a closed surface cut into flat charts (by xatlas), and the place of the surface that a texel shows.

u goes to the right and v up, both 0..1; the texel in row r and column c of a picture of side S has its centre at
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

GAP = 4  # least number of texels between charts, not counting those that the edge of a chart touches
FULL = 0.5  # share of the texture that triangles take in the first try; charts can seldom be packed more densely
SHRINK = 0.98  # extra factor of the scale after a try that was too large, because the gaps do not shrink with it


@dataclass(frozen=True)
class Atlas:
    """A surface that is cut into charts; the vertices on cuts occur once in each chart."""

    origin: Int[Tensor, "V"]  # for each vertex, the vertex of the surface that it comes from
    faces: Int[Tensor, "F 3"]
    uv: Float[Tensor, "V 2"]  # 0..1


@dataclass(frozen=True)
class Texels:
    """The M texels whose centres lie in a triangle, and the places of the surface that they show."""

    rows: Int[Tensor, "M"]
    columns: Int[Tensor, "M"]
    places: SurfacePoints


def unfolded(surface: Surface, side: int) -> Atlas:
    """Cut the surface into charts, flatten them, and pack them as large as fits in ``side`` x ``side`` texels.

    The charts are at least ``GAP`` texels apart.

    Raises:
        OutputError: the charts get less than one texel per four vertices, so that colours at the vertices would show
            much more detail.
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
    """Cut the surface into charts and flatten each of them, nearly without changing lengths.

    Returns, for V vertices of the charts, the vertex of the surface that each comes from, then the triangles, then the
    positions in the plane in the units of the surface. Charts may overlap.
    """
    import xatlas

    charts = xatlas.ChartOptions()
    charts.max_cost, charts.max_chart_area = 8.0, 0.3  # few charts, but none so curved that it must be cut again
    atlas = xatlas.Atlas()
    atlas.add_mesh(surface.vertices.numpy(), surface.faces.numpy().astype(np.uint32))
    atlas.generate(charts)
    origin, faces, uv = (torch.from_numpy(values.copy()) for values in atlas[0])
    return origin.long(), faces.long(), uv.double() * torch.tensor([atlas.width, atlas.height]) / atlas.texels_per_unit


def _packed(flat: Float[Tensor, "V 2"], faces: Int[Tensor, "F 3"]) -> tuple[Float[Tensor, "V 2"], int]:
    """Move and rotate flat charts until none overlap; returns their positions and the side of the square they fill.

    All lengths are in texels. The scale is set here, because xatlas does not always keep to a size of the texture.
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
    """Find the texels of a picture of ``side`` x ``side`` whose centres lie in a triangle of the atlas."""
    corners = atlas.uv[atlas.faces].double().numpy()
    flat = np.stack([corners[..., 0] * side - 0.5, (1.0 - corners[..., 1]) * side - 0.5], axis=-1)
    faces, weights = np.full((side, side), -1, dtype=np.int64), np.zeros((side, side, 3))
    cover(flat, faces, weights)
    rows, columns = np.nonzero(faces >= 0)
    places = SurfacePoints(torch.from_numpy(faces[rows, columns]), torch.from_numpy(weights[rows, columns]))
    return Texels(torch.from_numpy(rows), torch.from_numpy(columns), places)


def filled(pixels: Texels, colours: Float[Tensor, "M 3"], side: int) -> NDArray[np.uint8]:
    """The picture [side, side, 3] with colours 0..255 from ``colours`` 0..1, those of the M texels ``pixels``.

    All other texels take the colour of the nearest of them, so that seams do not show.
    """
    from scipy.ndimage import distance_transform_edt

    picture, empty = np.zeros((side, side, 3), dtype=np.uint8), np.ones((side, side), dtype=bool)
    picture[pixels.rows, pixels.columns] = colours.mul(255.0).round().to(torch.uint8).numpy()
    empty[pixels.rows, pixels.columns] = False
    rows, columns = np.asarray(distance_transform_edt(empty, return_distances=False, return_indices=True))
    return picture[rows, columns]
