"""The views of a step: how many cameras there are, how they are drawn, and what is behind the object."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Cameras, send
from gsdistill.prior.base import Prior
from gsdistill.scene.cameras.base import MOMENTS, CameraLaw
from gsdistill.scene.cameras.orbit import Orbit
from gsdistill.training.backgrounds.base import Background
from gsdistill.training.backgrounds.mixed import Mixed
from gsdistill.training.pictures import PictureSettings

__all__ = ["ViewSettings", "check_cameras", "check_groups", "draw_views"]


@dataclass(frozen=True)
class ViewSettings:
    """The views of a step."""

    count: int = bounded(4, low=1)
    resolution: int = bounded(64, low=8)  # pixels, width and height
    background: Background = field(default_factory=Mixed)
    cameras: CameraLaw = field(default_factory=Orbit)
    pictures: PictureSettings = field(default_factory=PictureSettings)


def draw_views(
    views: ViewSettings, progress: float, generator: torch.Generator, like: Tensor
) -> tuple[Cameras, Float[Tensor, "B 4"]]:
    """Draw cameras and one background per view, as :meth:`Background.draw`, on the device of ``like``, in one copy.

    ``progress`` is the finished share, 0..1, of the stage.
    """
    cameras = views.cameras.draw(views.count, views.resolution, progress, generator)
    parts = {name: getattr(cameras, name) for name in ("viewmats", "Ks", "azimuths", "elevations", "distances")}
    parts["backgrounds"] = views.background.draw(views.count, generator)
    flat = send(torch.cat([part.flatten() for part in parts.values()]), like)
    pieces = flat.split([part.numel() for part in parts.values()])
    sent = {name: piece.view(part.shape) for (name, part), piece in zip(parts.items(), pieces, strict=True)}
    backgrounds = sent.pop("backgrounds")
    return replace(cameras, **sent), backgrounds


def check_groups(views: int, cameras: CameraLaw, prior: str, together: int) -> int:
    """How many views form a group, for ``views`` views a step and a prior that sees ``together`` views at once.

    ``prior`` is the prior's name, for errors.

    Raises:
        ConfigError: the views of a step are not a multiple of the group, the prior needs other groups, or the cameras
            other numbers.
    """
    group = cameras.group or together
    if together not in (1, group):
        raise ConfigError(f"cameras.group = {group}: the prior {prior} sees {together} views together")
    for low, high in (cameras.ranges(moment)["azimuth"] for moment in MOMENTS):
        if together > 1 and high - low != 360:
            raise ConfigError(
                f"cameras.azimuth = [{low:g}, {high:g}]: the prior {prior} sees {together} views all around, "
                "which needs 360 degrees"
            )
    if views % group:
        raise ConfigError(f"views = {views} is no multiple of the {group} views of a group of cameras")
    cameras.check(views, group)
    return group


def check_cameras(cameras: CameraLaw, prior: Prior) -> None:
    """Refuse cameras outside the range that a camera-conditioned prior was trained on.

    Raises:
        ConfigError: a range of ``cameras`` is not within that of the prior.
    """
    if prior.camera_range is None:
        return
    reach = cameras.reach()
    for name, (low, high) in prior.camera_range.ranges().items():
        span = reach[name]
        if span[0] < low or span[1] > high:
            raise ConfigError(
                f"cameras.{name} = {list(span)} leaves what the prior {prior.name} was trained on: {low:g} to {high:g}"
            )
