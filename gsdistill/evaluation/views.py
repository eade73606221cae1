"""Pictures of a splat beside those of the true object, from cameras that no run trains on; silhouettes and colours.

The cameras are 32 on a spiral of golden-angle steps, elevation -10..60 degrees, distance 3.2, field of view 40 degrees,
128 x 128 pixels. A picture is kept as body b (colour times coverage, over black) and alpha a; over a background g it is
b + (1 - a) g, and inside a silhouette, which is where a > 1/2, its colour is b / a.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gsdistill.evaluation.traced import traced
from gsdistill.renderer.base import render
from gsdistill.scene.cameras import look_at_origin
from gsdistill.shapes.captions import COLORS, Thing
from gsdistill.shapes.raycast import Buffers, paint
from gsdistill.shapes.world import build
from gsdistill.structs import Cameras, Gaussians

__all__ = [
    "SIZE",
    "VIEWS",
    "Pictures",
    "buffers",
    "colour_error",
    "held_out",
    "iou",
    "photograph",
    "seen_colours",
    "truth",
]

VIEWS, SIZE = 32, 128
_ELEVATIONS, _DISTANCE, _FOV = (-10.0, 60.0), 3.2, 40.0
_GOLDEN_ANGLE, _START = 137.50776, 8.65  # degrees; from here no camera comes within a degree of a multiple of 45
_EDGE = 0.5  # alpha from which on a pixel belongs to the silhouette


@dataclass(frozen=True)
class Pictures:
    """Pictures from B cameras: body in 0..1, premultiplied with alpha."""

    body: Float[Tensor, "B H W 3"]
    alpha: Float[Tensor, "B H W 1"]

    @property
    def silhouettes(self) -> Bool[Tensor, "B H W"]:
        """True where the object is."""
        return self.alpha[..., 0] > _EDGE

    @property
    def colours(self) -> Float[Tensor, "B H W 3"]:
        """The colour of the object itself, meaningful inside of the silhouettes."""
        return (self.body / self.alpha.clamp_min(_EDGE)).clamp(0.0, 1.0)


@functools.lru_cache(maxsize=4)
def held_out(size: int = SIZE) -> Cameras:
    """The 32 fixed cameras of the evaluation, ``size`` pixels wide and high."""
    index = torch.arange(VIEWS, dtype=torch.float64)
    azimuths = torch.remainder(_START + _GOLDEN_ANGLE * index, 360.0)
    low, high = _ELEVATIONS
    elevations = low + (high - low) * (index + 0.5) / VIEWS
    ones = torch.ones(VIEWS)
    return look_at_origin(azimuths, elevations, _DISTANCE * ones, _FOV * ones, size)


def photograph(gaussians: Gaussians) -> Pictures:
    """The splat as the held-out cameras see it."""
    with torch.no_grad():
        seen = render(gaussians, held_out(), torch.zeros(VIEWS, 3))
    return Pictures(seen.images, seen.alphas)


@functools.lru_cache(maxsize=8)
def buffers(shapes: tuple[str, ...]) -> Buffers:
    """The uncoloured truth from the held-out cameras, once per process; ``shapes`` has the upper one first."""
    things = tuple(Thing("white", shape) for shape in shapes)
    return traced([build(things).parts], held_out())[0]


def truth(things: tuple[Thing, ...]) -> Pictures:
    """The object ``things`` as the held-out cameras see it."""
    colours = torch.from_numpy(build(things).colors)
    return Pictures(*paint(buffers(tuple(thing.shape for thing in things)), colours, torch.zeros(VIEWS, 3)))


def iou(ours: Pictures, true: Pictures) -> float:
    """Intersection over union of the silhouettes, 0..1: per view, then the mean over the views."""
    a, b = ours.silhouettes, true.silhouettes
    both, either = (a & b).sum((1, 2)), (a | b).sum((1, 2))
    return float((both / either.clamp_min(1)).mean())


def colour_error(ours: Pictures, true: Pictures) -> float:
    """Mean absolute difference of the RGB colours, 0..1, over all pixels in both silhouettes; 1 if there are none."""
    inside = ours.silhouettes & true.silhouettes
    if not inside.any():
        return 1.0
    return float((ours.colours[inside] - true.colours[inside]).abs().mean())


def seen_colours(ours: Pictures, shapes: tuple[str, ...]) -> tuple[str | None, ...]:
    """The named colour that each part of the object has in our pictures; None for a part that is not there.

    The pixels of part p are those inside our silhouette of which p covers more than half. With u their colour in our
    picture and s the shade of p alone in the truth, colour c leaves the residual

        sum |u - c s|^2 = sum |u|^2 - 2 c . sum s u + |c|^2 sum s^2,

    and the one of the 11 that leaves the least is the answer.
    """
    palette = torch.tensor(list(COLORS.values()), dtype=torch.float64)
    light = buffers(shapes)
    names: list[str | None] = []
    for p in range(len(shapes)):
        pixels = ours.silhouettes & (light.coverage[:, p] > 0.5)
        u = ours.colours[pixels].double()
        s = (light.shade[:, p] / light.coverage[:, p].clamp_min(0.5))[pixels].double()
        residual = (palette**2).sum(1) * (s**2).sum() - 2.0 * palette @ (s @ u)
        names.append(list(COLORS)[int(residual.argmin())] if len(s) else None)
    return tuple(names)
