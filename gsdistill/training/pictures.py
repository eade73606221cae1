"""What the prior is shown of a render: its colours, in a share of the steps depth or normals, or a mirror image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Cameras, Render
from gsdistill.renderer.maps import disparities, normal_pictures

__all__ = ["PictureSettings", "mirrored", "shown"]


@dataclass(frozen=True)
class PictureSettings:
    """How often a step shows something else than the colours of its views.

    Depth and mirror images are LucidDreamer's (arXiv 2311.11284). Normals are those of geometry stages: Fantasia3D,
    ProlificDreamer, and Consistent3D, which shows nothing else there (a share of 1).
    """

    # share of the steps that show how near the surface is, in grey on black, in place of the colours
    depth: float = bounded(0.0, low=0, high=1)
    # share of the steps that show the mirror images of all their views
    flip: float = bounded(0.0, low=0, high=1)
    # share of the steps that show which way the surface faces, in colours on black, in place of its own colours
    normals: float = bounded(0.0, low=0, high=1)

    def __post_init__(self) -> None:
        if self.depth + self.normals > 1:
            raise ConfigError(
                f"pictures.depth = {self.depth:g} and pictures.normals = {self.normals:g} are more than all steps: a "
                "step shows one of them, so that together they are at most 1"
            )


def shown(
    render: Render, cameras: Cameras, settings: PictureSettings, generator: torch.Generator
) -> tuple[Render, Cameras]:
    """The render as the prior is shown it in a step, and the cameras that would see it so.

    The generator is asked only for shares above 0.
    """
    if settings.flip > 0 and _drawn(generator) < settings.flip:
        render, cameras = mirrored(render, cameras)
    if settings.depth + settings.normals > 0:
        place = _drawn(generator)
        if place < settings.depth:
            render = replace(render, images=disparities(render).expand(-1, -1, -1, 3))
        elif place < settings.depth + settings.normals:
            render = replace(render, images=normal_pictures(render, cameras))
    return render, cameras


def mirrored(render: Render, cameras: Cameras) -> tuple[Render, Cameras]:
    """Left and right exchanged: what the cameras, mirrored at the plane y = 0, see of the scene mirrored there.

    A camera at azimuth a goes to -a. ``screen`` and ``radii`` stay those of the scene itself.
    """
    flipped = {name: getattr(render, name).flip(2) for name in ("images", "alphas", "depths")}
    world = cameras.viewmats.new_tensor([1.0, -1.0, 1.0, 1.0]).diag()
    screen = cameras.viewmats.new_tensor([-1.0, 1.0, 1.0, 1.0]).diag()
    across = cameras.Ks.clone()
    across[:, 0, 2] = cameras.width - cameras.Ks[:, 0, 2]
    others = replace(cameras, viewmats=screen @ cameras.viewmats @ world, Ks=across, azimuths=-cameras.azimuths)
    return replace(render, **flipped), others


def _drawn(generator: torch.Generator) -> float:
    """A number that is less than a share in that share of the steps."""
    return float(torch.rand(1, generator=generator))
