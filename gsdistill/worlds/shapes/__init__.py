"""The procedural world: solids as signed distance functions, a caption grammar with its parser, and a ray-caster.

It is the training data of the shapes prior and, because every prompt in it has a known object, the ground truth
that generated splats are judged against.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.structs import Cameras
from gsdistill.worlds.base import Buffers, Layout, Thing, World
from gsdistill.worlds.shapes import captions

__all__ = ["Shapes"]


class Shapes(World):
    """14 solids in 11 colours, alone or one on another. Numba's kernels are imported only when they are needed."""

    name: ClassVar[str] = "shapes"
    grammar: ClassVar[str] = "[a] colour solid [on [a] colour solid]"
    palette: ClassVar[Mapping[str, tuple[float, float, float]]] = captions.COLORS

    def parse(self, prompt: str) -> tuple[Thing, ...]:
        """As :func:`gsdistill.worlds.shapes.captions.parse`."""
        return captions.parse(prompt)

    def normalised(self, prompt: str) -> str:
        """As :func:`gsdistill.worlds.shapes.captions.normalised`."""
        captions.parse(prompt)
        return captions.normalised(prompt)

    def plain(self, text: str) -> tuple[str, Sequence[str]]:
        """As :func:`gsdistill.worlds.shapes.captions.normalised` and ``unknown_words``."""
        return captions.normalised(text), captions.unknown_words(text)

    def caption(self, things: tuple[Thing, ...]) -> str:
        """As :func:`gsdistill.worlds.shapes.captions.object_name`."""
        return captions.object_name(things)

    def vocabulary(self) -> Mapping[str, Sequence[str]]:
        """The colours, the solids, and synonyms of solids."""
        return {"colours": [*captions.COLORS], "solids": captions.SHAPES, "synonyms": [*captions.SYNONYMS]}

    def layouts(self) -> Sequence[Layout]:
        """All solids, and all stacks."""
        from gsdistill.worlds.shapes.world import every_layout

        return [*every_layout()]

    def trace(self, layout: Layout, cameras: Cameras, supersample: int) -> Buffers:
        """As :func:`gsdistill.worlds.shapes.raycast.trace`."""
        from gsdistill.worlds.shapes.raycast import trace
        from gsdistill.worlds.shapes.world import layout_parts

        return trace(layout_parts(layout), cameras, supersample)

    def sources(self) -> Iterable[Path]:
        """The ray-caster, the solids, and how they are stacked."""
        return (Path(__file__).with_name(f"{name}.py") for name in ("raycast", "solids", "world"))

    def distance(self, layout: Layout, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """The exact distance to the union of the solids."""
        from gsdistill.worlds.shapes.solids import distances
        from gsdistill.worlds.shapes.world import layout_parts

        return torch.from_numpy(distances(layout_parts(layout), points.double().contiguous().numpy()))

    def surface(self, layout: Layout, count: int, rng: np.random.Generator) -> Float[Tensor, "{count} 3"]:
        """As :func:`gsdistill.worlds.shapes.surface.sample_surface`."""
        from gsdistill.worlds.shapes.surface import sample_surface
        from gsdistill.worlds.shapes.world import layout_parts

        return torch.from_numpy(sample_surface(layout_parts(layout), count, rng))
