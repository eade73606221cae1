"""The solid that a splat represents, as a function on a grid that is positive inside, and the surface of that solid.

The solid is computed from three functions, each positive inside, negative outside and 0 on the surface:

    density     sum_i o_i exp(-d_i^T C_i^-1 d_i / 2) / level - 1, with o_i the opacity and d_i = x - mean i:
                there is matter
    hidden      the third smallest over the views of (depth of x - mean depth shown) / band: no three views see x
    silhouette  the third smallest over the views of 2 alpha - 1: no three views see past the object at x

    solid = min(silhouette, max(density, hidden)), clamped to -1..1

With the density alone a splat would be hollow, because what no camera sees is not trained. With ``hidden`` alone
concave parts would be filled, because a splat is soft and its mean depth lies behind its surface. Together they keep
the inside of a cup empty and its wall solid. On the grid, enclosed holes are filled and small parts removed, and the
border is outside. So the surface that marching cubes (T. Lewiner et al., 2003) finds is closed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from gsdistill.core.errors import OutputError
from gsdistill.core.structs import Gaussians
from gsdistill.mesh._kernels import add_gaussians
from gsdistill.mesh.photographs import Photographs, reach
from gsdistill.mesh.settings import MeshSettings
from gsdistill.scene.extent import UnitBall

__all__ = ["Surface", "surface"]

BAND = 0.1  # units of the unit ball: a point this far behind what a view shows is fully hidden from it
WITNESSES = 3  # views that must see that a point is empty; through a small hole only one view does
SMOOTHING = 0.7  # standard deviation of the filter, in cells
NEAR_ZERO = 1e-3  # least absolute value on the grid, so that no triangle is degenerate
POINTS = 1 << 15  # computed at once


@dataclass(frozen=True)
class Surface:
    """A closed surface, whose triangles are counter-clockwise seen from outside."""

    vertices: Float[Tensor, "V 3"]  # in the unit ball
    faces: Int[Tensor, "F 3"]


def surface(gaussians: Gaussians, photographs: Photographs, settings: MeshSettings, ball: UnitBall) -> Surface:
    """The surface of the solid that Gaussians in the unit ball represent; ``photographs`` show them.

    ``ball`` is where the unit ball lies in the scene, for the lengths in errors.

    Raises:
        OutputError: the solid is empty at this level.
    """
    from scipy.ndimage import gaussian_filter
    from skimage.measure import marching_cubes

    far = reach(gaussians)[:, None]
    low, high = (gaussians.means - far).amin(dim=0), (gaussians.means + far).amax(dim=0)
    cell = float((high - low).max()) / settings.resolution
    corner = low - 2.0 * cell
    shape = tuple(((high - corner) / cell).ceil().long().add(3).tolist())
    field = np.pad(_field(gaussians, photographs, corner, cell, shape, settings.level), 1, constant_values=-1.0)
    field = _cleaned(np.asarray(gaussian_filter(field, SMOOTHING, mode="nearest")), settings.smallest)
    if not (field > 0).any():
        sides = " x ".join(f"{side:.3g}" for side in ((high - low) * ball.radius).tolist())
        raise OutputError(
            f"there is nothing to mesh: in {sides} with cells of {ball.radius * cell:.3g} no part is as dense as the "
            f"level {settings.level}; lower meshing.level, or raise meshing.resolution for what is small"
        )
    vertices, faces, _, _ = marching_cubes(field, 0.0, gradient_direction="ascent")
    places = torch.from_numpy(np.array(vertices, dtype=np.float64)).sub(1.0).mul(cell).add(corner)
    return Surface(places.float(), torch.from_numpy(np.array(faces, dtype=np.int64)))


def _field(
    gaussians: Gaussians,
    photographs: Photographs,
    low: Float[Tensor, "3"],
    cell: float,
    shape: tuple[int, ...],
    level: float,
) -> NDArray[np.float32]:
    """``solid`` of the module's docstring at the points low + cell * (i, j, k) of a grid of ``shape``."""
    density = _density(gaussians, low, cell, shape).flatten() / level - 1.0
    out = []
    for start in range(0, density.numel(), POINTS):
        rows = torch.arange(start, min(start + POINTS, density.numel()))
        places = torch.stack(torch.unravel_index(rows, shape), dim=-1).double().mul(cell).add(low).float()
        behind, covered = [], []
        for glimpse in photographs.glimpses(places):
            behind.append(torch.where(glimpse.alphas > 0.5, (glimpse.depths - glimpse.seen) / BAND, -1.0))
            covered.append(2.0 * glimpse.alphas - 1.0)
        hidden, silhouette = (torch.stack(values).kthvalue(WITNESSES, dim=0).values for values in (behind, covered))
        out.append(torch.minimum(silhouette, torch.maximum(density[rows], hidden)))
    return torch.cat(out).clamp(-1.0, 1.0).reshape(shape).numpy()


def _density(
    gaussians: Gaussians, low: Float[Tensor, "3"], cell: float, shape: tuple[int, ...]
) -> Float[Tensor, "X Y Z"]:
    """The summed opacity at the points of the grid; Gaussians are widened to deviations of half a cell or more."""
    from scipy.spatial.transform import Rotation

    axes = Rotation.from_quat(gaussians.quats.double().numpy()[:, [1, 2, 3, 0]]).as_matrix()
    deviations = (gaussians.scales.double().exp().square() + (0.5 * cell) ** 2).sqrt() / cell
    means, opacities = (gaussians.means.double() - low) / cell, torch.sigmoid(gaussians.opacities.double())
    out = np.zeros(shape, dtype=np.float32)
    add_gaussians(out, means.numpy(), axes, deviations.numpy(), opacities.numpy())
    return torch.from_numpy(out)


def _cleaned(field: NDArray[np.floating[Any]], smallest: float) -> NDArray[np.float32]:
    """Fill enclosed holes, remove parts below the share ``smallest`` of the largest, and avoid values near 0."""
    from scipy import ndimage

    parts: Any = ndimage.label(np.asarray(ndimage.binary_fill_holes(field > 0)))
    sizes = np.bincount(parts[0].ravel())
    sizes[0] = 0
    solid = ((sizes > 0) & (sizes >= smallest * sizes.max()))[parts[0]]
    return np.where(solid, 1, -1).astype(np.float32) * np.maximum(np.abs(field), NEAR_ZERO)
