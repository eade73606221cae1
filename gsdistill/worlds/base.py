"""The interface of a world: a closed set of prompts, each naming an object whose pictures and surface are known.

An object is a tuple of coloured things, the upper one first; without its colours it is a layout. For part p and pixel q
the buffers of a layout hold the coverage c[p, q], the share of rays that hit p first; the shade m[p, q], the mean over
all rays of the factor of p's colour (0 for rays that miss p); and f[q], the mean of what has a colour of its own. Any
colouring is then made from the same buffers: image = sum_p colour_p m_p + f + (1 - sum_p c_p) background.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import PromptError
from gsdistill.core.structs import Cameras, Gaussians, to_device
from gsdistill.settings.registry import load
from gsdistill.worlds.truth_cache import remembered

__all__ = ["Buffers", "Layout", "Thing", "World", "paint", "world_named"]

Layout = tuple[str, ...]  # the shapes of an object, the upper one first


@dataclass(frozen=True)
class Thing:
    """One coloured part of an object."""

    color: str  # empty: in the colours of its own
    shape: str


@dataclass(frozen=True)
class Buffers:
    """Pictures without colour of an object's P parts, seen by B cameras."""

    shade: Float[Tensor, "B P H W"]  # premultiplied with coverage; at most 1.4, where a model's own shades go that far
    coverage: Float[Tensor, "B P H W"]  # 0..1; the sum over P is the object's alpha
    fixed: Float[Tensor, "B 3 H W"] | None = None  # RGB that no colour word changes; None where there is none


def paint(
    buffers: Buffers, colors: Float[Tensor, "P 3"], backgrounds: Float[Tensor, "B 3"]
) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B H W 1"]]:
    """Colour the buffers (all colours RGB in 0..1): images in 0..1 composed over the backgrounds, and alpha in 0..1."""
    alpha = buffers.coverage.sum(1)[..., None]
    body = torch.einsum("bphw,pc->bhwc", buffers.shade, colors)
    if buffers.fixed is not None:
        body = (body + buffers.fixed.movedim(1, -1)).clamp_max(1.0)  # a bright shade of a bright colour
    return body + (1.0 - alpha) * backgrounds[:, None, None, :], alpha


class World(ABC):
    """A closed world: its prompts, and the truth about each. Objects lie in the unit ball, +z up, front towards +x."""

    name: ClassVar[str]
    grammar: ClassVar[str]  # the form of a prompt, for messages
    palette: ClassVar[Mapping[str, tuple[float, float, float]]]  # RGB in 0..1 of each colour that a prompt can name
    missing: ClassVar[str] = ""  # how to get a truth that is not at hand

    @abstractmethod
    def parse(self, prompt: str) -> tuple[Thing, ...]:
        """Return the object that ``prompt`` names.

        Raises:
            PromptError: a word is unknown (the message has the nearest known one), or the words name no object.
        """

    @abstractmethod
    def normalised(self, prompt: str) -> str:
        """The prompt in the case and punctuation that the world's own priors read. Raises as :meth:`parse`."""

    @abstractmethod
    def plain(self, text: str) -> tuple[str, Sequence[str]]:
        """Any words in the form the world's own priors read, and those of them that the world does not know."""

    @abstractmethod
    def caption(self, things: tuple[Thing, ...]) -> str:
        """The plainest prompt of an object: "a red cube on a blue sphere"."""

    @abstractmethod
    def vocabulary(self) -> Mapping[str, Sequence[str]]:
        """The words of prompts by kind, such as colours and solids."""

    @abstractmethod
    def layouts(self) -> Sequence[Layout]:
        """Every object of the world, without its colours."""

    def meant(self, things: tuple[Thing, ...]) -> Sequence[Layout]:
        """The layouts that things may mean: more than one where several models share a name."""
        return [tuple(thing.shape for thing in things)]

    def rivals(self, things: tuple[Thing, ...]) -> Sequence[Layout]:
        """The layouts among which a splat of ``things`` is given its name."""
        return self.layouts()

    def tried(self, things: tuple[Thing, ...]) -> tuple[Sequence[str], Sequence[str]]:
        """Colours in which the first and the second part of :meth:`rivals` are compared with a splat of ``things``."""
        return [*self.palette], [*self.palette]

    def things(self, layout: Layout, colors: Sequence[str]) -> tuple[Thing, ...]:
        """What a layout in these colours is called; colours beyond its parts are left out."""
        return tuple(Thing(color, shape) for color, shape in zip(colors, layout, strict=False))

    def title(self, layout: Layout) -> str:
        """The names of the models that a layout shows, where a prompt may mean several; else empty."""
        return ""

    def agrees(self, named: tuple[Thing, ...], things: tuple[Thing, ...]) -> bool:
        """Whether what a splat is called is what a prompt says."""
        return named == things

    def drawn_from(self, layout: Layout) -> str:
        """What pictures of a layout are drawn from; empty where they are exact."""
        return ""

    def reference(self, things: tuple[Thing, ...]) -> Gaussians | None:
        """A splat of an object as a perfect distillation would make it; None where there is none but the truth."""
        return None

    def is_measurable(self, layout: Layout) -> bool:
        """Whether the surface of a layout is known, not only its pictures."""
        return True

    def is_closed(self, layout: Layout) -> bool:
        """Whether inside and outside of a layout are known."""
        return True

    @abstractmethod
    def trace(self, layout: Layout, cameras: Cameras, supersample: int) -> Buffers:
        """Draw an object on the CPU with supersample^2 rays per pixel."""

    @abstractmethod
    def sources(self) -> Iterable[Path]:
        """The source files that decide what :meth:`trace` draws; if they change, cached pictures are drawn again."""

    @abstractmethod
    def distance(self, layout: Layout, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Distance of points to the surface in world units, float64; negative inside where that is known."""

    @abstractmethod
    def surface(self, layout: Layout, count: int, rng: np.random.Generator) -> Float[Tensor, "{count} 3"]:
        """``count`` random points on the surface, nearly uniform by area, float64."""

    def colors(self, things: tuple[Thing, ...]) -> Float[Tensor, "P 3"]:
        """The colours of an object's things, RGB in 0..1; of what has its own, zero."""
        return torch.tensor([self.palette[thing.color] if thing.color else (0.0,) * 3 for thing in things])

    def buffers(self, layouts: Sequence[Layout], cameras: Cameras, supersample: int = 3) -> list[Buffers]:
        """What :meth:`trace` draws of each layout, bit for bit, from the cache on disk if it was drawn before."""
        facts = (self.name, tuple(layouts), cameras.width, cameras.height, supersample)
        arrays = cameras.viewmats.numpy(), cameras.Ks.numpy()
        drawn = remembered(
            (facts, *arrays), self.sources(), lambda: [vars(self.trace(one, cameras, supersample)) for one in layouts]
        )
        return [Buffers(**planes) for planes in drawn]

    def pictures(
        self, things: tuple[Thing, ...], cameras: Cameras, backgrounds: Float[Tensor, "B 3"], supersample: int = 3
    ) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B H W 1"]]:
        """The true pictures of an object, of the first that is meant: RGB in 0..1 over the backgrounds, and alpha."""
        seen = self.trace(self.meant(things)[0], to_device(cameras, "cpu"), supersample)
        return paint(seen, self.colors(things), backgrounds)

    def at_hand(self, layout: Layout = ()) -> bool:
        """Whether pictures of a layout, or of any, can be drawn on this machine."""
        return True

    def known(self, prompt: str) -> tuple[Thing, ...]:
        """The object of ``prompt``, where a truth is asked for.

        Raises:
            PromptError: it names none, or its truth is not on this machine.
        """
        try:
            things = self.parse(prompt)
        except PromptError as error:
            needed = f"evaluation on truth needs a prompt of the world of {self.name}, '{self.grammar}'"
            raise PromptError(f"{needed}; the object of '{prompt}' is not known") from error
        if not self.at_hand(self.meant(things)[0]):
            raise PromptError(f"the truth of the world of {self.name} is not on this machine: {self.missing}")
        return things


@functools.cache
def world_named(name: str) -> World:
    """The world called ``name``, one object for each. Raises ConfigError if there is none."""
    return load("gsdistill.worlds", name, "world")()
