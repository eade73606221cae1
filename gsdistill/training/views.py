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
from gsdistill.scene.cameras import CameraSettings, sample
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
    cameras: CameraSettings = field(default_factory=CameraSettings)
    pictures: PictureSettings = field(default_factory=PictureSettings)


def draw_views(views: ViewSettings, generator: torch.Generator, like: Tensor) -> tuple[Cameras, Float[Tensor, "B 4"]]:
    """Draw cameras and one background per view, as :meth:`Background.draw`, on the device of ``like``, in one copy."""
    cameras = sample(views.cameras, views.count, views.resolution, generator)
    parts = {name: getattr(cameras, name) for name in ("viewmats", "Ks", "azimuths", "elevations", "distances")}
    parts["backgrounds"] = views.background.draw(views.count, generator)
    flat = send(torch.cat([part.flatten() for part in parts.values()]), like)
    pieces = flat.split([part.numel() for part in parts.values()])
    sent = {name: piece.view(part.shape) for (name, part), piece in zip(parts.items(), pieces, strict=True)}
    backgrounds = sent.pop("backgrounds")
    return replace(cameras, **sent), backgrounds


def check_groups(views: int, cameras: CameraSettings, prior: str, together: int) -> int:
    """How many views form a group, for ``views`` views a step and a prior that sees ``together`` views at once.

    ``prior`` is the prior's name, for errors.

    Raises:
        ConfigError: the views of a step are not a multiple of the group, or the prior needs other groups.
    """
    group = cameras.group or together
    if together not in (1, group):
        raise ConfigError(f"cameras.group = {group}: the prior {prior} sees {together} views together")
    low, high = cameras.azimuth
    if together > 1 and high - low != 360:
        raise ConfigError(
            f"cameras.azimuth = [{low:g}, {high:g}]: the prior {prior} sees {together} views all around, "
            "which needs 360 degrees"
        )
    if views % group:
        raise ConfigError(f"views = {views} is no multiple of the {group} views of a group of cameras")
    return group


def check_cameras(cameras: CameraSettings, prior: Prior) -> None:
    """Refuse cameras outside the range that a camera-conditioned prior was trained on.

    Raises:
        ConfigError: a range of ``cameras`` is not within that of the prior.
    """
    if prior.camera_range is None:
        return
    for name, (low, high) in prior.camera_range.ranges().items():
        span = getattr(cameras, name)
        if span[0] < low or span[1] > high:
            raise ConfigError(
                f"cameras.{name} = {list(span)} leaves what the prior {prior.name} was trained on: {low:g} to {high:g}"
            )
