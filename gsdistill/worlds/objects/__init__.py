"""The world of everyday objects: 312 nouns, most in the colours of their models or in others, alone or one on another.

Its truth are free models, up to three of a noun, and the solids of the shapes world. A prompt that several models may
show is judged against the nearest of them.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import BadFile
from gsdistill.core.structs import Cameras, Gaussians
from gsdistill.disk.places import data_path
from gsdistill.worlds.base import Buffers, Layout, Thing, World
from gsdistill.worlds.objects import captions
from gsdistill.worlds.objects.catalogue import Model, models, models_of, words
from gsdistill.worlds.objects.meshes import VARIABLE, folder, mesh_of
from gsdistill.worlds.shapes import Shapes
from gsdistill.worlds.shapes.captions import BOTTOMS, TOPS

if TYPE_CHECKING:
    from gsdistill.worlds.objects.drawing import Scene
    from gsdistill.worlds.objects.splats import Reference

__all__ = ["Objects"]

_SPLATS = data_path("assets", "objects-splats", "splats.npz")
PAINTED = " in any colour"  # ends the name of a model in a layout whose main faces a colour word repaints


class Objects(World):
    """Layouts name models ("chair_08"), with ``PAINTED`` behind where a word names the colour, and solids."""

    name: ClassVar[str] = "objects"
    grammar: ClassVar[str] = "[a] [colour] noun [on [a] [colour] noun]"
    palette: ClassVar[Mapping[str, tuple[float, float, float]]] = captions.COLORS
    missing: ClassVar[str] = f"set {VARIABLE} to the folder of its meshes, as gsdistill/worlds/README.md says"

    def parse(self, prompt: str) -> tuple[Thing, ...]:
        """As :func:`gsdistill.worlds.objects.captions.parse`."""
        return captions.parse(prompt)[0]

    def normalised(self, prompt: str) -> str:
        """The prompt in the names that the priors have learnt, with articles. Raises as :meth:`parse`."""
        return captions.parse(prompt)[1]

    def plain(self, text: str) -> tuple[str, Sequence[str]]:
        """As :func:`gsdistill.worlds.objects.captions.plain`."""
        return captions.plain(text)

    def caption(self, things: tuple[Thing, ...]) -> str:
        """As :func:`gsdistill.worlds.objects.captions.caption`."""
        return captions.caption(things)

    def vocabulary(self) -> Mapping[str, Sequence[str]]:
        """Colours, nouns by category, solids, and other names of nouns."""
        nouns = {noun for group in words().categories.values() for noun in group}
        others = {name for model in models().values() for name in model.synonyms}
        others |= {name for said in words().said.values() for name in said}
        return {
            "colours": [*captions.COLORS],
            **words().categories,
            "solids": captions.SOLIDS,
            "other names": sorted(others - nouns),
        }

    def layouts(self) -> Sequence[Layout]:
        """All models in colours of their own, all that a word may repaint, and all solids and their stacks."""
        own = [(name,) for name in models()]
        painted = [(model.name + PAINTED,) for model in models().values() if model.paint != "none"]
        return [*own, *painted, *self._solids()]

    def meant(self, things: tuple[Thing, ...]) -> Sequence[Layout]:
        """Every combination of models that the names and colours fit."""
        return [*product(*map(_forms, things, _standing(things)))]

    def rivals(self, things: tuple[Thing, ...]) -> Sequence[Layout]:
        """All models, repainted where a word names a colour; of two things all tops on the lower one's models."""
        if captions.is_solid(things[-1].shape):
            return self._solids()
        bottoms = _forms(things[-1], _standing(things)[-1])
        if len(things) == 2:
            tops = [
                form for noun in words().tops for model in models_of(noun) for form in _worn(model, things[0].color)
            ]
            return [*product(tops, bottoms)]
        every = [(form,) for model in models().values() for form in _worn(model, things[0].color)]
        return [*every, *([(solid,) for solid in captions.SOLIDS] if things[0].color else [])]

    def tried(self, things: tuple[Thing, ...]) -> tuple[Sequence[str], Sequence[str]]:
        """Of solids all colours, of models those of the prompt."""
        if captions.is_solid(things[-1].shape):
            return super().tried(things)
        first, second = (*things, Thing("", ""))[:2]
        return [first.color], [second.color]

    def things(self, layout: Layout, colors: Sequence[str]) -> tuple[Thing, ...]:
        """The nouns of models; one in colours of its own has no colour's word."""
        shapes = [name if name in captions.SOLIDS else models()[_bare(name)].noun for name in layout]
        words = [color if _is_painted(name) else "" for color, name in zip(colors, layout, strict=False)]
        return tuple(map(Thing, words, shapes))

    def agrees(self, named: tuple[Thing, ...], things: tuple[Thing, ...]) -> bool:
        """Whether each noun is one that the prompt's name may mean, in its colour if a word may repaint it."""
        return len(named) == len(things) and all(
            ours.shape in (thing.shape, *captions.nouns(thing.shape)) and ours.color in ("", thing.color)
            for ours, thing in zip(named, things, strict=True)
        )

    def title(self, layout: Layout) -> str:
        """The names of its models; empty for solids."""
        return " on ".join(map(_bare, layout)) if layout[0] not in captions.SOLIDS else ""

    def drawn_from(self, layout: Layout) -> str:
        """Meshes, or where there are none the reference splats that ship; empty for solids."""
        return "" if layout[0] in captions.SOLIDS else "meshes" if folder() else "reference splats"

    def at_hand(self, layout: Layout = ()) -> bool:
        """Whether there are meshes, or reference splats; solids need neither."""
        return {*layout} & {*captions.SOLIDS} != set() or folder() is not None or _SPLATS.is_file()

    def is_measurable(self, layout: Layout) -> bool:
        """Whether it is a solid, or the meshes are at hand."""
        return layout[0] in captions.SOLIDS or folder() is not None

    def is_closed(self, layout: Layout) -> bool:
        """Solids are."""
        return layout[0] in captions.SOLIDS

    def trace(self, layout: Layout, cameras: Cameras, supersample: int) -> Buffers:
        """Draw solids by their rays, models by their triangles, or where the meshes are not here by reference splats.

        Raises:
            BadFile: there are neither.
        """
        if layout[0] in captions.SOLIDS:
            return Shapes().trace(layout, cameras, supersample)
        if folder() is None:
            from gsdistill.worlds.objects.splats import draw

            return draw(*_references(layout), cameras)
        from gsdistill.worlds.objects.drawing import draw

        return draw(_scene(layout), cameras, supersample)

    def reference(self, things: tuple[Thing, ...]) -> Gaussians | None:
        """The reference splats of its first models; None for solids, and without meshes to measure them against."""
        layout = self.meant(things)[0]
        if layout[0] in captions.SOLIDS or not (folder() and _SPLATS.is_file()):
            return None
        from gsdistill.worlds.objects.splats import colored

        return colored(*_references(layout), self.colors(things))

    def sources(self) -> Iterable[Path]:
        """The meshes or the reference splats, and all that chooses, colours, places and draws them and the solids."""
        place, here = folder(), Path(__file__).parent
        data = [place / "objects.npz", place / "objects.json"] if place else [_SPLATS]
        ours = [*here.glob("*.py"), *here.glob("*.json"), *(here.parents[1] / "renderer").glob("*.py")]
        drawn = [Path(captions.shapes.__file__), *Shapes().sources(), *ours, *data]
        return sorted(path for path in drawn if path.is_file())

    def distance(self, layout: Layout, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Exact, to the triangles that can be seen; of solids negative inside."""
        if layout[0] in captions.SOLIDS:
            return Shapes().distance(layout, points)
        from gsdistill.worlds.objects.surface import distances

        return torch.from_numpy(distances(_corners(layout), points.double().contiguous().numpy()))

    def surface(self, layout: Layout, count: int, rng: np.random.Generator) -> Float[Tensor, "{count} 3"]:
        """Points on what can be seen."""
        if layout[0] in captions.SOLIDS:
            return Shapes().surface(layout, count, rng)
        from gsdistill.worlds.objects.surface import sample

        return torch.from_numpy(sample(_corners(layout), count, rng))

    def _solids(self) -> Sequence[Layout]:
        stacks = [*product(TOPS, BOTTOMS)]
        return [*((solid,) for solid in captions.SOLIDS), *(pair for pair in stacks if {*pair} <= {*captions.SOLIDS})]


def _bare(name: str) -> str:
    return name.removesuffix(PAINTED)


def _is_painted(name: str) -> bool:
    return name.endswith(PAINTED) or name in captions.SOLIDS


def _worn(model: Model, color: str) -> list[str]:
    """The forms of a model that are compared where the prompt names ``color``, or none."""
    return [model.name + PAINTED] if color and model.paint != "none" else [model.name]


def _standing(things: tuple[Thing, ...]) -> list[Collection[str]]:
    """The nouns that each thing may be where it stands: alone any."""
    known = words()
    return [known.tops, known.bottoms] if len(things) == 2 else [{m.noun for m in models().values()}]


def _forms(thing: Thing, nouns: Collection[str]) -> list[str]:
    """The models of some nouns, in their forms, that a thing may be."""
    if captions.is_solid(thing.shape):
        return [thing.shape]
    every = [model for noun in captions.nouns(thing.shape) for model in models_of(noun) if noun in nouns]
    if not thing.color:
        return [model.name for model in every]
    fitting = [model for model in every if model.paint != "none" or model.color == thing.color]
    return [model.name + PAINTED if model.paint != "none" else model.name for model in fitting]


def _references(layout: Layout) -> tuple[list[Reference], list[bool]]:
    from gsdistill.worlds.objects.splats import reference

    return [reference(_bare(name)) for name in layout], [_is_painted(name) for name in layout]


@functools.lru_cache(maxsize=64)
def _scene(layout: Layout) -> Scene:
    from gsdistill.worlds.objects.drawing import placed

    place = folder()
    if place is None:
        raise BadFile(f"the meshes of everyday objects are not here: set {VARIABLE}; tools/README.md says how")
    meshes = [mesh_of(models()[_bare(name)], place) for name in layout]
    return placed(meshes, [_is_painted(name) for name in layout])


@functools.lru_cache(maxsize=64)
def _corners(layout: Layout) -> np.ndarray:
    from gsdistill.worlds.objects.surface import seen_corners

    return seen_corners(_scene(layout))
