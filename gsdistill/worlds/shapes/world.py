"""Objects of the shapes world: where each named thing stands, and its colour.

A single thing has its full size. Two things are stacked on the z axis, scaled so that the pair is centred and stays
inside the ball of radius 0.95.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gsdistill.worlds.base import Thing
from gsdistill.worlds.shapes.captions import BOTTOMS, COLORS, SHAPES, TOPS
from gsdistill.worlds.shapes.solids import HEIGHTS

__all__ = ["WorldObject", "build", "every_layout", "layout_parts"]

_TOP_SCALE, _BOTTOM_SCALE, _TABLE_SCALE = 0.5, 0.62, 0.66
_SINK = 0.04  # the upper thing sinks in a little, so that round ones touch


@dataclass(frozen=True)
class WorldObject:
    """Placed solids [P, 3] (index in captions.SHAPES, scale, z offset), colours [P, 3] in 0..1; the upper one first."""

    parts: NDArray[np.float64]
    colors: NDArray[np.float32]


def build(things: tuple[Thing, ...]) -> WorldObject:
    """The object of one thing, or of two with the upper one first."""
    shapes = tuple(thing.shape for thing in things)
    colors = np.array([COLORS[thing.color] for thing in things], dtype=np.float32)
    return WorldObject(layout_parts(shapes), colors)


def every_layout() -> dict[tuple[str, ...], NDArray[np.float64]]:
    """The parts, as of :func:`layout_parts`, of every layout of the world: all solids, and all stacks of two."""
    shapes: list[tuple[str, ...]] = [(shape,) for shape in SHAPES]
    shapes += [(top, bottom) for top in TOPS for bottom in BOTTOMS]
    return {names: layout_parts(names) for names in shapes}


def layout_parts(shapes: tuple[str, ...]) -> NDArray[np.float64]:
    """Where the solids of an object stand, [P, 3]: index in captions.SHAPES, scale, z offset; the upper one first."""
    kinds = [SHAPES.index(shape) for shape in shapes]
    if len(kinds) == 1:
        return np.array([[kinds[0], 1.0, 0.0]])
    top, bottom = kinds
    below = _TABLE_SCALE if shapes[1] == "table" else _BOTTOM_SCALE
    low, seam = below * HEIGHTS[bottom][0], below * HEIGHTS[bottom][1] - _SINK
    offset = seam - _TOP_SCALE * HEIGHTS[top][0]
    centre = 0.5 * (low + offset + _TOP_SCALE * HEIGHTS[top][1])
    return np.array([[top, _TOP_SCALE, offset - centre], [bottom, below, -centre]])
