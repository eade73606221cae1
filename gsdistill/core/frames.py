"""The axes that files use, as matrices from our world: right-handed, +z up, the object's front towards +x.

frame   x      y      z      used by
rdf     right  down   front  the INRIA layout; SuperSplat and similar viewers turn it by 180 degrees about z on loading
y-up    left   up     front  glTF, three.js
z-up    left   back   up     Blender, whose front view looks along +y
unity   right  up     front  Unity; left-handed: this matrix mirrors, and Unity's axes mirror again
world   front  left   up     gsdistill

Right and left are the object's own. Each row of a matrix is an axis of the frame in world coordinates.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

__all__ = ["FRAMES", "MATRICES", "Frame"]

Frame: TypeAlias = Literal["rdf", "y-up", "z-up", "unity", "world"]
FRAMES: tuple[Frame, ...] = get_args(Frame)

Matrix: TypeAlias = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]

MATRICES: dict[Frame, Matrix] = {
    "rdf": ((0, -1, 0), (0, 0, -1), (1, 0, 0)),
    "y-up": ((0, 1, 0), (0, 0, 1), (1, 0, 0)),
    "z-up": ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
    "unity": ((0, -1, 0), (0, 0, 1), (1, 0, 0)),
    "world": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
}
