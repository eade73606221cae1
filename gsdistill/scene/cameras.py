"""Cameras on a sphere around the origin that look at it.

Azimuth a and elevation e: position = r (cos e cos a, cos e sin a, sin e), so azimuth 0 stands on +x and sees the front.
The axes of the camera in the world (OpenCV) follow from the angles alone, and are finite at the poles:
right = (-sin a, cos a, 0), down = (sin e cos a, sin e sin a, -cos e), forward = -position / r.
They are the rows of the world-to-camera rotation; the translation is (0, 0, r).
A square image of ``size`` pixels that spans the angle fov has fx = fy = size / (2 tan(fov / 2)) and cx = cy = size / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.device import widest_float
from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Cameras

__all__ = ["CameraSettings", "all_around", "golden_azimuths", "look_at_origin", "orbit", "sample"]


@dataclass(frozen=True)
class CameraSettings:
    """The ranges (low, high) that training cameras are drawn from; a range of equal ends is a fixed value."""

    azimuth: tuple[float, float] = bounded((0.0, 360.0), low=-360, high=360)  # degrees, 0 sees the front
    elevation: tuple[float, float] = bounded((-10.0, 60.0), low=-90, high=90)  # degrees above the horizon
    distance: tuple[float, float] = bounded((3.2, 3.2), above=1)  # world units; the object fills the unit ball
    fov: tuple[float, float] = bounded((40.0, 40.0), above=0, below=180)  # degrees, of the whole (square) image
    group: int | None = bounded(None, low=1)  # views in a row at equal steps of azimuth; none: the prior's number

    def __post_init__(self) -> None:
        for name in ("azimuth", "elevation", "distance", "fov"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(
                    f"cameras.{name} = [{low}, {high}] is empty; the first number must not exceed the second"
                )
        if self.azimuth[1] - self.azimuth[0] > 360:
            raise ConfigError(f"cameras.azimuth = {list(self.azimuth)} spans more than 360 degrees")


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


def sample(settings: CameraSettings, count: int, size: int, generator: torch.Generator) -> Cameras:
    """Draw ``count`` cameras that together surround the object, each of them uniform in its ranges.

    The azimuth range is cut into ``count`` equal strata, turned as a whole by one random offset (wrapping at the ends
    of the range), and each camera takes a uniform place in its own stratum: every camera is equally likely to be at any
    azimuth, and neighbours are never more than two strata apart. Elevation, distance and field of view are independent
    and uniform in their units; elevation is thus uniform in degrees, which looks from above more often than uniform
    area on the sphere would.

    With groups of k, each of ``count`` / k draws serves k cameras in a row, whose azimuths are 1/k of the range apart.
    ``count`` must be a multiple of k. Images are square, ``size`` pixels.
    """
    each = settings.group or 1
    draws = count // each
    offset = _uniform(1, generator)
    first = (torch.arange(draws) + _uniform(draws, generator)) / draws / each
    place = torch.remainder((first[:, None] + torch.arange(each) / each).flatten() + offset, 1.0)
    elevation, distance, fov = (
        _between(limits, _uniform(draws, generator)).repeat_interleave(each)
        for limits in (settings.elevation, settings.distance, settings.fov)
    )
    return look_at_origin(_between(settings.azimuth, place), elevation, distance, fov, size)


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


def _uniform(count: int, generator: torch.Generator) -> Float[Tensor, "{count}"]:
    return torch.rand(count, generator=generator, dtype=torch.float64)


def _between(limits: tuple[float, float], place: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    low, high = limits
    return (low + (high - low) * place).float()
