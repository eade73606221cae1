"""Cameras all around the object: each looks at the origin from a random azimuth, elevation and distance.

By default the azimuths have one stratum for each view, turned as a whole by one random angle, and elevation, distance
and field of view are uniform. The other settings are those of released programs, whose defaults differ from ours:

* threestudio (data/uncond.py): ``elevation_law: mixed``, ``turned: false``. One draw decides for a whole step whether
  its elevations are uniform in degrees or on the sphere. ``progressive_until`` N opens the ranges from one direction,
  ``elevation: ["15:-10@p", "15:90@p"]`` and ``azimuth: ["0:-180@p", "0:180@p"]`` with p = (N + 1) / steps. Its
  camera_perturb, center_perturb and up_perturb are the three jitters.
* Earlier threestudio, and Consistent3D, GaussianDreamer and the cameras of ScaleDreamer's MVDream: ``mixed-sine``. What
  they call uniform on the sphere draws the sine of the elevation between low / 90 and high / 90, not between the sines
  of the two: -10 to 45 degrees become -6.4 to 30.
* ScaleDreamer's cameras for MVDream: ``relative_distance``, ``strata: 1`` with groups of 4, ``turned: false``.
* Consistent3D (use_n_views): ``strata: 4, turned: false``, so that view i is in quarter i mod 4.
* LucidDreamer (scene/dataset_readers.py): ``strata: 1, shared: [fov]``, rand_cam_gamma is ``gamma``, and jitter_center
  is twice ``jitter_position``. Its ranges grow by a factor every 500 steps, where a schedule here grows evenly. Its
  noise on the up vector comes after the right axis is fixed, so that its axes are not quite orthogonal; ours are.

As in all of them, a jittered camera keeps the azimuth, elevation and distance from before, and the prior is told those.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Cameras
from gsdistill.scene.cameras.base import MOMENTS, CameraLaw, Ranges
from gsdistill.scene.viewpoints import look_at, look_at_origin
from gsdistill.settings.ramp import Ramp

__all__ = ["Orbit", "span"]

Span: TypeAlias = tuple[Ramp, Ramp]


def span(low: float | str, high: float | str) -> Span:
    """Return a range, each of whose ends is a number or a schedule over the stage, as ``5.2:3.5@0.8``."""
    return Ramp.parse(low), Ramp.parse(high)


@dataclass(frozen=True, kw_only=True)
class Orbit(CameraLaw):
    """Ranges (low, high) that cameras are drawn from; equal ends fix a value, and each may be a schedule."""

    azimuth: Span = bounded(span(0, 360), low=-360, high=360)  # degrees, 0 sees the front
    elevation: Span = bounded(span(-10, 60), low=-90, high=90)  # degrees above the horizon
    distance: Span = bounded(span(3.2, 3.2), above=0)  # world units, at least 1; the object fills the unit ball
    fov: Span = bounded(span(40, 40), above=0, below=180)  # degrees, of the whole (square) image
    # uniform in degrees (angle) or in area (sphere); mixed: each in half of the steps; mixed-sine: the sphere's half as
    # threestudio first had it
    elevation_law: Literal["angle", "sphere", "mixed", "mixed-sine"] = "angle"
    # how azimuth and elevation gather about the middle of their ranges: their distance from it is a uniform number to
    # this power; 1: not at all
    gamma: float = bounded(1.0, above=0)
    relative_distance: bool = False  # divide distances by tan(fov / 2), so that the object has one size in all pictures
    strata: int | None = bounded(None, low=1)  # parts of the azimuths, taken by turns; none: one for each view or group
    turned: bool = True  # turn the strata of a step by a random angle; else the first begins at the least azimuth
    shared: tuple[Literal["elevation", "distance", "fov"], ...] = ()  # what all views of a step have in common
    jitter_position: float = bounded(0.0, low=0)  # most shift of the camera along each axis, uniform, world units
    jitter_target: float = bounded(0.0, low=0)  # standard deviation of what it looks at along each axis, world units
    jitter_up: float = bounded(0.0, low=0)  # standard deviation of noise on the up vector (0, 0, 1)

    def __post_init__(self) -> None:
        every = [self._ends(moment) for moment in MOMENTS]
        for name in every[0]:
            low, high = getattr(self, name)
            given = f"cameras.{name} = [{low}, {high}]"
            if any(ends[name][0] > ends[name][1] for ends in every):
                raise ConfigError(f"{given} is empty; the first number must not exceed the second")
            if name == "azimuth" and any(ends[name][1] - ends[name][0] > 360 for ends in every):
                raise ConfigError(f"{given} spans more than 360 degrees")
            if name == "distance" and (least := self.reach()[name][0]) < 1:
                raise ConfigError(
                    f"{given} brings cameras as near as {least:g}, into the object, which fills the unit ball; they "
                    "must stay at 1 or farther"
                )

    def check(self, views: int, group: int) -> None:
        """Refuse strata that would leave azimuths without views, and groups whose steps would not be equal."""
        if self.strata and self.strata > views // group and not self.turned:
            raise ConfigError(
                f"cameras.strata = {self.strata} leaves azimuths without views: a step draws {views // group}; it must "
                "be at most as many, or cameras.turned true"
            )
        if self.gamma != 1 and group > 1:
            raise ConfigError(f"cameras.gamma = {self.gamma:g} bends the equal steps of a group of views; set it to 1")

    def ranges(self, progress: float) -> Ranges:
        """The ranges at ``progress``, without the jitter."""
        found = self._ends(progress)
        low, high = found["elevation"]
        if self.elevation_law == "mixed-sine":
            found["elevation"] = min(low, _arcsine(low / 90)), max(high, _arcsine(high / 90))
        if self.relative_distance:
            (least, most), (narrow, wide) = found["distance"], (math.radians(fov) for fov in found["fov"])
            found["distance"] = least / math.tan(0.5 * wide), most / math.tan(0.5 * narrow)
        return found

    def draw(self, count: int, size: int, progress: float, generator: torch.Generator) -> Cameras:
        """Draw ``count`` cameras that together surround the object.

        The azimuth range is cut into equal strata, by default one for each view, turned as a whole by one random offset
        (wrapping at the ends of the range), and each camera takes a uniform place in its own stratum: every camera is
        equally likely to be at any azimuth. Elevation, distance and field of view are independent of each other.

        With groups of k, each of ``count`` / k draws serves k cameras in a row, whose azimuths are 1/k of the range
        apart, and which share all else.
        """
        each = self.group or 1
        draws, ends = count // each, self._ends(progress)
        offset = _uniform(1, generator) if self.turned else 0.0
        strata = self.strata or draws
        first = (torch.arange(draws) % strata + _uniform(draws, generator)) / strata / each
        place = torch.remainder((first[:, None] + torch.arange(each) / each).flatten() + offset, 1.0)
        elevation, distance, fov = (
            self._drawn(name, ends[name], draws, generator).repeat_interleave(each)
            for name in ("elevation", "distance", "fov")
        )
        if self.relative_distance:
            distance = (distance.double() / torch.tan(0.5 * torch.deg2rad(fov.double()))).float()
        cameras = look_at_origin(_between(ends["azimuth"], self._gathered(place)), elevation, distance, fov, size)
        return self._jittered(cameras, draws, each, generator)

    def _ends(self, progress: float) -> dict[str, tuple[float, float]]:
        """What the settings say at ``progress``, by their names."""
        spans = {"azimuth": self.azimuth, "elevation": self.elevation, "fov": self.fov, "distance": self.distance}
        return {name: (_at(low, progress), _at(high, progress)) for name, (low, high) in spans.items()}

    def _drawn(
        self, name: str, ends: tuple[float, float], draws: int, generator: torch.Generator
    ) -> Float[Tensor, "{draws}"]:
        """One value for each draw, or one for all if they share it."""
        place = _uniform(1 if name in self.shared else draws, generator)
        values = self._elevations(ends, place, generator) if name == "elevation" else _between(ends, place)
        return values.expand(draws)

    def _elevations(
        self, ends: tuple[float, float], place: Float[Tensor, "K"], generator: torch.Generator
    ) -> Float[Tensor, "K"]:
        """Elevations in degrees by the law of the settings, of uniform places in 0..1."""
        law, place = self.elevation_law, self._gathered(place)
        if law.startswith("mixed"):
            law = "angle" if _uniform(1, generator) < 0.5 else law.replace("mixed", "sphere")
        if law == "angle":
            return _between(ends, place)
        low, high = (end / 90 if law == "sphere-sine" else math.sin(math.radians(end)) for end in ends)
        return torch.rad2deg(torch.asin(low + (high - low) * place)).float()

    def _gathered(self, place: Float[Tensor, "K"]) -> Float[Tensor, "K"]:
        """Places in 0..1, drawn towards 1/2 by ``gamma``."""
        if self.gamma == 1:
            return place
        side = 2 * place - 1
        return 0.5 + 0.5 * side.sign() * side.abs() ** self.gamma

    def _jittered(self, cameras: Cameras, draws: int, each: int, generator: torch.Generator) -> Cameras:
        """The cameras, moved and turned at random; all of a group in the same way."""
        if not (self.jitter_position or self.jitter_target or self.jitter_up):
            return cameras
        views = cameras.viewmats.double()
        position = -torch.einsum("bji,bj->bi", views[:, :3, :3], views[:, :3, 3])
        shift = 2 * torch.rand(draws, 3, generator=generator, dtype=torch.float64) - 1
        aside, tilt = torch.randn(2, draws, 3, generator=generator, dtype=torch.float64)
        shift, aside, tilt = (noise.repeat_interleave(each, dim=0) for noise in (shift, aside, tilt))
        up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64) + self.jitter_up * tilt
        moved = look_at(position + self.jitter_position * shift, self.jitter_target * aside, up)
        return replace(cameras, viewmats=moved.float())


def _at(ramp: Ramp, progress: float) -> float:
    """The value of a schedule; of a constant one to the last bit, which weighing its two ends would not give."""
    return ramp.end if ramp.start == ramp.end else ramp(progress)


def _arcsine(sine: float) -> float:
    return math.degrees(math.asin(sine))


def _uniform(count: int, generator: torch.Generator) -> Float[Tensor, "{count}"]:
    return torch.rand(count, generator=generator, dtype=torch.float64)


def _between(limits: tuple[float, float], place: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    low, high = limits
    return (low + (high - low) * place).float()
