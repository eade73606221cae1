"""A finite set of ray-cast pictures: with a prompt, its object from all sides; without, every solid in every colour.

The prior is the exact denoiser of the set, the network that perfect training on it would give. So no network is to
blame for what a method does here. Pictures are planes in -1..1 over mid grey; p(x) contains p(x | y).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.ranges import bounded
from gsdistill.laboratory.worlds.base import AnalyticWorld, Densities
from gsdistill.prior.analytic import Mixture
from gsdistill.scene.viewpoints import orbit
from gsdistill.worlds.base import Thing, paint, world_named

__all__ = ["ShapesSet"]


@dataclass(frozen=True)
class ShapesSet(AnalyticWorld):
    """Settings of the world."""

    size: int = bounded(32, low=4, high=256)  # pixels of a picture
    views: int = bounded(24, low=1)  # of the prompt's object, at equal steps of azimuth
    other_views: int = bounded(4, low=1)  # of every other solid, in each of the colours

    def densities(self, prompt: str) -> Densities:
        """Ray-cast the pictures, a few milliseconds each. Raises PromptError for a prompt that names no object."""
        world = world_named("shapes")
        prompted = self._pictures([world.parse(prompt)], self.views)
        singles = [layout for layout in world.layouts() if len(layout) == 1]
        coloured = [[(Thing(color, shape),) for color in world.palette] for (shape,) in singles]
        others = [self._pictures(objects, self.other_views) for objects in coloured]
        shape = (3, self.size, self.size)
        return Densities(Mixture.of_images(prompted), Mixture.of_images(torch.cat([prompted, *others])), shape)

    def _pictures(self, objects: list[tuple[Thing, ...]], views: int) -> Float[Tensor, "K 3 h w"]:
        """``views`` pictures of each object; all are of one layout."""
        world, grey = world_named("shapes"), torch.full((views, 3), 0.5)
        layout = tuple(thing.shape for thing in objects[0])
        buffers = world.trace(layout, orbit(views, self.size), supersample=2)
        images = torch.cat([paint(buffers, world.colors(things), grey)[0] for things in objects])
        return 2.0 * images.permute(0, 3, 1, 2) - 1.0
