"""A finite set of ray-cast pictures: given the prompt, its object from all sides; without, every solid in every colour.

The prior is the exact denoiser of the set, the network that a perfect training on it would give: what a method does
here is not the fault of a network. Pictures are planes in -1..1 over mid grey; p(x) contains p(x | y).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.ranges import bounded
from gsdistill.laboratory.worlds.base import Stage, World
from gsdistill.prior.analytic import Mixture
from gsdistill.scene.cameras import orbit
from gsdistill.worlds.shapes.captions import COLORS, SHAPES, Thing, parse
from gsdistill.worlds.shapes.raycast import paint, trace
from gsdistill.worlds.shapes.world import build

__all__ = ["ShapesSet"]


@dataclass(frozen=True)
class ShapesSet(World):
    """Settings of the world."""

    size: int = bounded(32, low=4, high=256)  # pixels of a picture
    views: int = bounded(24, low=1)  # of the prompt's object, at equal steps of azimuth
    other_views: int = bounded(4, low=1)  # of every other solid, in each of the colours

    def stage(self, prompt: str) -> Stage:
        """Ray-cast the pictures, a few milliseconds each."""
        wanted = self._pictures(parse(prompt), [], self.views)
        palette = list(COLORS)
        others = [self._pictures((Thing("white", shape),), palette, self.other_views) for shape in SHAPES]
        shape = (3, self.size, self.size)
        return Stage(Mixture.of_images(wanted), Mixture.of_images(torch.cat([wanted, *others])), shape)

    def _pictures(self, things: tuple[Thing, ...], palette: list[str], views: int) -> Float[Tensor, "K 3 h w"]:
        """``views`` pictures of an object in its own colours, or of a single solid in each colour of ``palette``."""
        placed, cameras = build(things), orbit(views, self.size)
        seen = trace(placed.parts, cameras, supersample=2)
        colourings = [[COLORS[name]] for name in palette] or [placed.colors.tolist()]
        grey = torch.full((views, 3), 0.5)
        images = torch.cat([paint(seen, torch.tensor(colours), grey)[0] for colours in colourings])
        return 2.0 * images.permute(0, 3, 1, 2) - 1.0
