"""What a step looks at: how many cameras, how they are drawn, and what stands behind the object."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Cameras, send
from gsdistill.prior.base import Prior
from gsdistill.scene.cameras import CameraSettings, sample

__all__ = ["Background", "ViewSettings", "check_cameras", "check_groups", "draw_backgrounds", "draw_views"]

Background = Literal["mixed", "random", "grey", "white", "black"]


@dataclass(frozen=True)
class ViewSettings:
    """What a step looks at."""

    count: int = bounded(4, low=1)
    resolution: int = bounded(64, low=8)  # pixels
    background: Background = "mixed"
    cameras: CameraSettings = field(default_factory=CameraSettings)


def draw_views(views: ViewSettings, generator: torch.Generator, like: Tensor) -> tuple[Cameras, Float[Tensor, "B 3"]]:
    """Cameras, and one colour behind each, on the device of ``like``, where they come in one copy."""
    cameras = sample(views.cameras, views.count, views.resolution, generator)
    backgrounds = draw_backgrounds(views.background, views.count, generator)
    names = ("viewmats", "Ks", "azimuths", "elevations", "distances")
    parts = [*(getattr(cameras, name) for name in names), backgrounds]
    flat = send(torch.cat([part.flatten() for part in parts]), like)
    pieces = [piece.view(part.shape) for piece, part in zip(flat.split([p.numel() for p in parts]), parts, strict=True)]
    return replace(cameras, **dict(zip(names, pieces[:-1], strict=True))), pieces[-1]


def draw_backgrounds(kind: Background, count: int, generator: torch.Generator) -> Float[Tensor, "B 3"]:
    """One colour a view: ``mixed`` is mid grey for half of the draws, and any colour for the others."""
    fixed = {"grey": 0.5, "white": 1.0, "black": 0.0}
    if kind in fixed:
        return torch.full((count, 3), fixed[kind])
    colors = torch.rand(count, 3, generator=generator)
    if kind == "random":
        return colors
    grey = torch.rand(count, 1, generator=generator) < 0.5
    return torch.where(grey, torch.full_like(colors, 0.5), colors)


def check_groups(views: int, cameras: CameraSettings, prior: str, together: int) -> int:
    """The views of a group of cameras, for so many ``views`` and a prior of that name that sees so many ``together``.

    Raises:
        ConfigError: the views do not make whole groups, or not those that the prior needs.
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
    """Refuse cameras that a camera-conditioned prior has never seen.

    Raises:
        ConfigError: a range leaves what the prior knows.
    """
    if prior.camera_range is None:
        return
    for name, (low, high) in prior.camera_range.ranges().items():
        span = getattr(cameras, name)
        if span[0] < low or span[1] > high:
            raise ConfigError(
                f"cameras.{name} = {list(span)} leaves what the prior {prior.name} was trained on: {low:g} to {high:g}"
            )
