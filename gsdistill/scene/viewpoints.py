"""Cameras at given places: on a sphere around the origin that they look at, or anywhere.

Azimuth a and elevation e: position = r (cos e cos a, cos e sin a, sin e), so azimuth 0 stands on +x and sees the front.
The axes of the camera in the world (OpenCV) follow from the angles alone, and are finite at the poles:
right = (-sin a, cos a, 0), down = (sin e cos a, sin e sin a, -cos e), forward = -position / r.
They are the rows of the world-to-camera rotation; the translation is (0, 0, r).
A square image of ``size`` pixels that spans the angle fov has fx = fy = size / (2 tan(fov / 2)) and cx = cy = size / 2.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from gsdistill.core.device import widest_float
from gsdistill.core.structs import Cameras

__all__ = ["all_around", "golden_azimuths", "look_at", "look_at_origin", "orbit"]


def look_at_origin(
    azimuths: Float[Tensor, "B"],
    elevations: Float[Tensor, "B"],
    distances: Float[Tensor, "B"],
    fovs: Float[Tensor, "B"],
    size: int,
) -> Cameras:
    """Return cameras with square images of ``size`` pixels at the given angles (degrees) and distances (world units).

    Everything is returned in float32 on the device of the arguments; the matrices are computed in float64 if it has it.
    """
    exact = widest_float(azimuths.device)
    a, e, fov = (torch.deg2rad(angle.to(exact)) for angle in (azimuths, elevations, fovs))
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    right = torch.stack([-a.sin(), a.cos(), zero, zero], dim=-1)
    down = torch.stack([e.sin() * a.cos(), e.sin() * a.sin(), -e.cos(), zero], dim=-1)
    forward = torch.stack([-e.cos() * a.cos(), -e.cos() * a.sin(), -e.sin(), distances.to(exact)], dim=-1)
    last = torch.stack([zero, zero, zero, one], dim=-1)
    focal, centre = 0.5 * size / torch.tan(0.5 * fov), one * (0.5 * size)
    intrinsics = torch.stack([focal, zero, centre, zero, focal, centre, zero, zero, one], dim=-1)
    return Cameras(
        viewmats=torch.stack([right, down, forward, last], dim=-2).float(),
        Ks=intrinsics.reshape(-1, 3, 3).float(),
        width=size,
        height=size,
        azimuths=azimuths.float(),
        elevations=elevations.float(),
        distances=distances.float(),
    )


def look_at(
    positions: Float[Tensor, "B 3"], targets: Float[Tensor, "B 3"], ups: Float[Tensor, "B 3"]
) -> Float[Tensor, "B 4 4"]:
    """Return the ``viewmats`` of cameras at ``positions`` that look at ``targets``, where ``ups`` point upwards.

    Positions and targets are in world units. An up vector has any length, and must not point along the line of sight.
    """
    forward = normalize(targets - positions, dim=-1)
    right = normalize(torch.linalg.cross(forward, ups), dim=-1)
    turns = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-2)
    shifts = -torch.einsum("bij,bj->bi", turns, positions)
    last = torch.tensor([0.0, 0.0, 0.0, 1.0]).to(positions).expand(len(positions), 1, 4)
    return torch.cat([torch.cat([turns, shifts[:, :, None]], dim=-1), last], dim=-2)


def orbit(count: int, size: int, elevation: float = 20.0, distance: float = 3.2, fov: float = 40.0) -> Cameras:
    """Return ``count`` cameras at equal steps around the object, from azimuth 0 on.

    Square images of ``size`` pixels; angles in degrees, ``distance`` in world units.
    """
    azimuths = torch.arange(count) * (360.0 / count)
    elevations, distances, fovs = (torch.full((count,), value) for value in (elevation, distance, fov))
    return look_at_origin(azimuths, elevations, distances, fovs, size)


def all_around(count: int, size: int, distance: float = 3.2, fov: float = 40.0) -> Cameras:
    """Return ``count`` cameras spread evenly over the whole sphere, from the top down in steps of the golden angle.

    Each has an equal slice of the sphere: the sines of their elevations are the middles of equal steps from 1 to -1.
    Square images of ``size`` pixels; ``distance`` in world units, ``fov`` in degrees.
    """
    middles = 1.0 - (2.0 * torch.arange(count, dtype=torch.float64) + 1.0) / count
    ones = torch.ones(count)
    return look_at_origin(golden_azimuths(count), torch.rad2deg(middles.asin()), distance * ones, fov * ones, size)


def golden_azimuths(count: int, first: float = 0.0) -> Float[Tensor, "{count}"]:
    """Return azimuths in 0..360 degrees, float64, from ``first`` on in steps of the golden angle 180 (3 - sqrt 5)."""
    return torch.remainder(first + 180.0 * (3.0 - 5.0**0.5) * torch.arange(count, dtype=torch.float64), 360.0)
