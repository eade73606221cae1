"""The meshes of everyday objects, where there are any: the folder that the variable GSDISTILL_OBJECTS names.

tools/objects builds the folder: objects.npz has ``vertices`` int16 [V, 3] (over 32767), ``faces`` int32 [F, 3] and
``colors`` uint8 [F, 3] (sRGB), and where those of each object begin; objects.json has their records in the same order.

A colour word repaints a model's main faces, those of the palette's colour that covers most of it, and keeps their
shades: the colour times the face's luminance over the mean of theirs, from 0.6 to 1.4.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsdistill.core.errors import BadFile
from gsdistill.core.failing import failing_as
from gsdistill.disk.read import read_text
from gsdistill.worlds.objects.captions import COLORS
from gsdistill.worlds.objects.catalogue import Model
from gsdistill.worlds.objects.stacking import extremes, support

__all__ = ["VARIABLE", "Mesh", "folder", "mesh_of"]

VARIABLE = "GSDISTILL_OBJECTS"
_LUMINANCE = np.array([0.3, 0.59, 0.11], np.float32)
_MAIN = 0.35  # share of the surface from which on a colour is the main one
_SHADES = 0.6, 1.4


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles with one colour each, and how a colour word changes it."""

    vertices: NDArray[np.float64]  # [V, 3] in the ball of radius 0.9
    faces: NDArray[np.int32]  # [F, 3]
    colors: NDArray[np.float32]  # [F, 3], sRGB in 0..1
    shades: NDArray[np.float32]  # [F]: what the colour of a word is multiplied with; 0 where none repaints the face

    @functools.cached_property
    def outline(self) -> NDArray[np.float64]:
        """As :func:`gsdistill.worlds.objects.stacking.extremes`."""
        return extremes(self.vertices)

    @functools.cached_property
    def support(self) -> NDArray[np.float64]:
        """As :func:`gsdistill.worlds.objects.stacking.support`."""
        return support(self.vertices, self.faces)


def folder() -> Path | None:
    """The folder of the meshes; None where the variable is not set.

    Raises:
        BadFile: it is set to a folder that has none.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    if not Path(named, "objects.npz").is_file():
        raise BadFile(f"{VARIABLE} = '{named}': this folder has no objects.npz; tools/README.md says how to build it")
    return Path(named)


@functools.lru_cache(maxsize=1024)
def mesh_of(model: Model, place: Path) -> Mesh:
    """The mesh of a model in a folder.

    Raises:
        BadFile: the folder's files are damaged, or have no such model.
    """
    with failing_as(BadFile, f"{place}: it is not a folder of meshes"):
        library, index = _library(place), _places(place)
        if model.name not in index:
            raise BadFile(f"{place}: there is no model '{model.name}'; tools/README.md says how to build the folder")
        own = index[model.name]
        vertices, faces = (slice(*library[f"{kind}_start"][own : own + 2]) for kind in ("vertex", "face"))
        corners, colors = library["faces"][faces], library["colors"][faces]
        points = library["vertices"][vertices].astype(np.float64) / 32767
    shades = _shades(model, points, corners, colors)
    if model.paint == "all":
        return Mesh(points, corners, shades[:, None] * np.array(COLORS[model.color], np.float32), shades)
    return Mesh(points, corners, colors.astype(np.float32) / 255, shades)


@functools.lru_cache(maxsize=2)
def _library(place: Path) -> dict[str, NDArray[Any]]:
    with np.load(place / "objects.npz") as arrays:
        return dict(arrays)


@functools.lru_cache(maxsize=2)
def _places(place: Path) -> dict[str, int]:
    return {record["id"]: number for number, record in enumerate(json.loads(read_text(place / "objects.json")))}


def _shades(
    model: Model, points: NDArray[np.float64], corners: NDArray[np.int32], colors: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """What the colour of a word is multiplied with on each face."""
    if model.paint == "none":
        return np.zeros(len(corners), np.float32)
    main = np.ones(len(corners), bool)
    if model.paint == "main":
        palette = 255 * np.array(list(COLORS.values()), np.float32)
        nearest = ((colors[:, None].astype(np.float32) - palette) ** 2).sum(-1).argmin(1)
        a, b, c = (points[corners[:, i]] for i in range(3))
        areas = np.bincount(nearest, np.linalg.norm(np.cross(b - a, c - a), axis=1), len(palette))
        main = (nearest == areas.argmax()) & (areas.max() > _MAIN * areas.sum())
    luminance = colors.astype(np.float32) @ _LUMINANCE
    mean = max(float(luminance[main].mean()), 1.0) if main.any() else 1.0
    return np.where(main, np.clip(luminance / mean, *_SHADES), 0).astype(np.float32)
