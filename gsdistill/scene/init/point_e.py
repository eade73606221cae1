"""Point-E: a model from text to a coloured point cloud says where to start.

Source: A. Nichol et al., Point-E: A System for Generating 3D Point Clouds from Complex Prompts, arXiv 2212.08751. Two
diffusion transformers, a base and an upsampler, draw coloured points from the prompt: OpenAI's published ones draw
4,096, the small ones of the shapes world, which ship, 1,024. The small ones take seconds on a CPU; OpenAI's are made
for an accelerator.
The points are kept on disk, so that the next run with the same prompt, seed and settings starts at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from gsdistill.core.errors import PromptError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import PointCloud
from gsdistill.disk.paths import may_be_path
from gsdistill.point_e.model import SOURCES, locate
from gsdistill.scene.clouds import make_once, turned
from gsdistill.scene.init.base import CloudInitialiser, draw_seed
from gsdistill.worlds.base import world_named

__all__ = ["PointE"]


@dataclass(frozen=True, kw_only=True)
class PointE(CloudInitialiser):
    """Settings of the Point-E initialiser."""

    # distance of the farthest point from the origin, world units; none: as made, shrunk if it leaves the unit ball
    radius: float | None = bounded(None, above=0, high=1)
    # shapes, openai or a folder; auto: shapes for a prompt of its world, else openai
    model: str = field(default="auto", metadata=may_be_path(lambda: ("auto", *SOURCES)))
    guidance_scale: float | None = bounded(None, low=0)  # of the base model; 0 and 1: no guidance; none: the model's
    steps: int | None = bounded(None, low=1, high=1_000)  # of the sampler; none: the model's
    azimuth: float = bounded(0.0, low=-360, high=360)  # degrees to turn the object by, counter-clockwise from above

    def cloud(self, prompt: str, generator: torch.Generator, device: torch.device | str) -> PointCloud:
        """Return the points that Point-E draws for the prompt.

        Raises:
            ModelNotFound: there is no such model, or it lacks a part. BadFile: one of its files is broken or of another
                model.
            PromptError: the prompt is longer than the text encoder reads, or outside of the model's world.
        """
        seed = draw_seed(generator)
        model = locate(_named(self.model, prompt))
        key = {
            "initialiser": "point-e",
            "prompt": prompt,
            "seed": seed,
            "model": model.fingerprint,
            "guidance_scale": self.guidance_scale,
            "steps": self.steps,
            "device": torch.device(device).type,
        }
        draws = torch.Generator().manual_seed(seed)
        cloud = make_once(key, lambda: model.load(device).sample(prompt, draws, self.guidance_scale, self.steps))
        return PointCloud(turned(cloud.points, self.azimuth), cloud.colors)


def _named(model: str, prompt: str) -> str:
    """Return the source that ``auto`` stands for; any other as it is."""
    if model != "auto":
        return model
    try:
        world_named("shapes").parse(prompt)
    except PromptError:
        return "openai"
    return "shapes"
