"""What the prior is shown of a render: its colours, in a share of the steps its depth, or a mirror image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Cameras, Render

__all__ = ["PictureSettings", "disparities", "mirrored", "shown"]

LEAST = 1e-6  # least depth times opacity of a pixel that is divided by; a renderer draws nothing so near


@dataclass(frozen=True)
class PictureSettings:
    """How often a step shows something else than the colours of its views, as LucidDreamer does (arXiv 2311.11284)."""

    # share of the steps that show how near the surface is, in grey on black, in place of the colours
    depth: float = bounded(0.0, low=0, high=1)
    # share of the steps that show the mirror images of all their views
    flip: float = bounded(0.0, low=0, high=1)


def shown(
    render: Render, cameras: Cameras, settings: PictureSettings, generator: torch.Generator
) -> tuple[Render, Cameras]:
    """The render as the prior is shown it in a step, and the cameras that would see it so.

    The generator is asked only for shares above 0.
    """
    if _happens(settings.flip, generator):
        render, cameras = mirrored(render, cameras)
    if _happens(settings.depth, generator):
        render = replace(render, images=disparities(render).expand(-1, -1, -1, 3))
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


def disparities(render: Render) -> Float[Tensor, "B H W 1"]:
    """How near the surface is: the opacity over the mean depth, 0 where there is nothing, 1 at each view's nearest.

    As LucidDreamer's depth picture, whose constants for its own renderer (10 added to the depth of what is opaque, the
    smallest value of the background taken away) are left out: nothing is infinitely far here, and so 0 by itself.
    """
    near = render.alphas.square() / render.depths.clamp_min(LEAST)
    return near / near.amax((1, 2, 3), keepdim=True).detach().clamp_min(LEAST)


def _happens(share: float, generator: torch.Generator) -> bool:
    """Whether something that is done in a ``share`` of the steps is done in this one."""
    return share > 0 and float(torch.rand(1, generator=generator)) < share
