"""Photographs of a splat from all sides, which give the shape and the colours of its mesh.

First the scene is moved and scaled, so that its visible part fills the unit ball: a point x of the world is at
(x - centre) / radius. Two kinds of Gaussians are left out: invisible ones, and floaters, which reach more than twice as
far from the median position as those with 99.5 % of the opacity. The cameras are spread evenly on a sphere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import OutputError
from gsdistill.core.structs import Cameras, Gaussians
from gsdistill.renderer.base import render
from gsdistill.scene.edit import picked
from gsdistill.scene.extent import UnitBall, weighted_quantile
from gsdistill.scene.viewpoints import all_around

__all__ = ["Glimpse", "Photographs", "centred", "photograph", "reach"]

VIEWS, AT_ONCE = 48, 8
VISIBLE = 0.05  # Gaussians of at most this opacity count as invisible
DEVIATIONS = 2.0  # a Gaussian reaches this many standard deviations from its mean
REST, FLOATING = 0.995, 2.0  # share of the opacity, and how many times as far floaters reach
SMALLEST, LARGEST = 1e-15, 1e15  # limits of a scene's radius: float32 can hold its square


@dataclass(frozen=True)
class Glimpse:
    """What one photograph shows at the projections of M points."""

    depths: Float[Tensor, "M"]  # of the points themselves, along the camera's axis
    seen: Float[Tensor, "M"]  # mean depth of what the photograph shows there
    alphas: Float[Tensor, "M"]  # 0..1
    colours: Float[Tensor, "M 3"]  # of what the photograph shows there, without background
    rays: Float[Tensor, "M 3"]  # unit vectors from the points to the camera


@dataclass(frozen=True)
class Photographs:
    """Pictures from B cameras; colour and depth are multiplied with alpha."""

    cameras: Cameras
    pictures: Float[Tensor, "B 5 H W"]  # red, green, blue, depth, alpha

    def __len__(self) -> int:
        return len(self.cameras)

    def glimpses(self, points: Float[Tensor, "M 3"]) -> Iterator[Glimpse]:
        """Yield what each photograph shows at ``points``, interpolated between pixels; alpha is 0 outside of it."""
        for view, k, picture in zip(self.cameras.viewmats, self.cameras.Ks, self.pictures, strict=True):
            rotation, shift = view[:3, :3], view[:3, 3]
            x, y, z = (points @ rotation.T + shift).unbind(-1)
            u, v = (x * k[0, 0] / z + k[0, 2]) / self.cameras.width, (y * k[1, 1] / z + k[1, 2]) / self.cameras.height
            places = torch.stack([2 * u - 1, 2 * v - 1], dim=-1)[None, None]
            values = torch.nn.functional.grid_sample(picture[None], places, align_corners=False)[0, :, 0]
            alphas = values[4]
            plain = values[:4] / alphas.clamp_min(1e-6)
            rays = torch.nn.functional.normalize(-rotation.T @ shift - points, dim=-1)
            yield Glimpse(z, plain[3], alphas, plain[:3].T, rays)


def reach(gaussians: Gaussians) -> Float[Tensor, "N"]:
    """How far each Gaussian reaches from its mean, in the scene's units, float64; 0 for invisible ones."""
    far = DEVIATIONS * gaussians.scales.double().amax(dim=1).exp()
    return torch.where(torch.sigmoid(gaussians.opacities) > VISIBLE, far, 0.0)


def centred(gaussians: Gaussians) -> tuple[Gaussians, UnitBall]:
    """The visible Gaussians without floaters, moved and scaled into the unit ball, and where that ball was.

    Raises:
        OutputError: no Gaussian is visible, or the radius of the visible ones is not between 1e-15 and 1e15.
    """
    keep = reach(gaussians) > 0
    if not keep.any():
        raise OutputError(
            f"there is nothing to mesh: none of the {len(gaussians)} Gaussians has an opacity above {VISIBLE}"
        )
    some = _without_floaters(picked(gaussians, keep))
    means, far = some.means.double(), reach(some)[:, None]
    centre = 0.5 * ((means - far).amin(dim=0) + (means + far).amax(dim=0))
    radius = float(((means - centre).norm(dim=1) + far[:, 0]).max())
    if not SMALLEST < radius < LARGEST:
        raise OutputError(
            f"there is nothing to mesh: the visible Gaussians have no finite extent, but a radius of {radius:.3g}"
        )
    x, y, z = centre.tolist()
    ball = UnitBall((x, y, z), radius)
    return ball.inside(some), ball


def _without_floaters(gaussians: Gaussians) -> Gaussians:
    """The Gaussians that are no floaters, see the module."""
    means, weights = gaussians.means.double(), torch.sigmoid(gaussians.opacities.double())
    median = torch.stack([weighted_quantile(axis, weights, 0.5) for axis in means.unbind(dim=1)])
    distances = (means - median).norm(dim=1) + reach(gaussians)
    return picked(gaussians, ~(distances > FLOATING * weighted_quantile(distances, weights, REST)))


def photograph(gaussians: Gaussians, size: int) -> Photographs:
    """Render Gaussians in the unit ball from 48 sides, in pictures of ``size`` x ``size`` pixels."""
    cameras = all_around(VIEWS, size)
    pictures = []
    for start in range(0, VIEWS, AT_ONCE):
        some = cameras.pick(slice(start, start + AT_ONCE))
        with torch.no_grad():
            seen = render(gaussians, some, torch.zeros(len(some), 3))
        pictures.append(torch.cat([seen.images, seen.depths, seen.alphas], dim=-1).permute(0, 3, 1, 2))
    return Photographs(cameras, torch.cat(pictures))
