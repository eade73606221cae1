"""Training data of the objects prior: captions and pictures of everyday objects, of solids, and of one on another.

68 % of the pictures are of one object, 8 % of a solid, 6 % of a solid on a solid, 18 % of an object on an object.
Where a model may be repainted it is so in 40 % of its pictures (60 % where its source has no colours); in half of the
others a word names the colour that it has. A batch is a function of its key.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from gsdistill.learning.stream import Key
from gsdistill.renderer.meshes import cover, means
from gsdistill.worlds.objects.captions import COLORS, PREFIXES, RELATIONS, SOLIDS, vocabulary
from gsdistill.worlds.objects.catalogue import models, words
from gsdistill.worlds.objects.drawing import Scene, lights, placed
from gsdistill.worlds.objects.meshes import Mesh, mesh_of
from gsdistill.worlds.shapes import captions as shapes
from gsdistill.worlds.shapes.world import layout_parts

__all__ = ["HELD_OUT", "LENGTH", "SIZE", "Batch", "Pictures", "tokens"]

SIZE = 64
LENGTH = 20  # tokens of a caption, its start and end included
# Never trained on: the share of the world that shows whether colours and nouns are understood apart.
HELD_OUT = frozenset(
    {
        ("pink", "car"), ("green", "chair"), ("red", "mug"), ("yellow", "sofa"), ("purple", "guitar"),
        ("orange", "house"), ("cyan", "teapot"), ("brown", "rocket"), ("white", "barrel"),
    }
)  # fmt: skip
_FOCAL = 0.5 * SIZE / np.tan(np.deg2rad(20.0))
_LENS = np.array([[_FOCAL, 0, SIZE / 2], [0, _FOCAL, SIZE / 2], [0, 0, 1.0]])
_DISTANCE, _RAYS = 3.2, 3


@dataclass(frozen=True)
class Batch:
    """Pictures in 0..1, the tokens of their captions (an empty one where it is dropped), and the cameras' degrees."""

    images: Float[Tensor, "B H W 3"]
    ids: Int[Tensor, "B L"]
    azimuths: Float[Tensor, "B"]
    elevations: Float[Tensor, "B"]


@dataclass(frozen=True)
class Part:
    """What is drawn of a thing, and what the caption says of it."""

    name: str  # of the model, or the solid
    mesh: Mesh
    color: NDArray[np.float32] | None  # RGB, where a word repaints it
    phrase: str


def tokens(numbers: Mapping[str, int], text: str) -> list[int]:
    """The numbers of a caption's words between start and end, filled up; these three follow the words' own numbers."""
    pad, start, end = (len(numbers) + i for i in range(3))
    ids = [start, *(numbers[word] for word in text.replace("-", " ").split()), end]
    return (ids + [pad] * LENGTH)[:LENGTH]


class Pictures:
    """Draws batches of some nouns from the meshes in a folder."""

    def __init__(self, place: Path, nouns: Collection[str]) -> None:
        self.numbers = {word: number for number, word in enumerate(vocabulary())}
        self._models = [model for model in models().values() if model.noun in nouns]
        self._tops, self._bottoms = ([n for n in known if n in nouns] for known in (words().tops, words().bottoms))
        counts = {model.noun: sum(other.noun == model.noun for other in self._models) for model in self._models}
        weights = np.array([counts[model.noun] ** -0.5 for model in self._models])
        self._weights = weights / weights.sum()
        self._meshes = {model.name: mesh_of(model, place) for model in self._models}
        self._solids = {solid: solid_mesh(solid) for solid in SOLIDS}
        self._of = {noun: [i for i, m in enumerate(self._models) if m.noun == noun] for noun in counts}
        self._alone = functools.cache(lambda name, painted: placed([{**self._meshes, **self._solids}[name]], [painted]))

    def batch(self, count: int, dropout: float, key: Key) -> Batch:
        """The batch of a key: ``count`` pictures, their captions empty with probability ``dropout``."""
        rng = np.random.default_rng(key)
        rows = [self.sample(rng) for _ in range(count)]
        ids = [tokens(self.numbers, "" if rng.random() < dropout else text) for _, text, _, _ in rows]
        images = torch.from_numpy(np.stack([image for image, _, _, _ in rows]))
        azimuths, elevations = (torch.tensor([row[i] for row in rows], dtype=torch.float32) for i in (2, 3))
        return Batch(images, torch.tensor(ids), azimuths, elevations)

    def sample(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], str, float, float]:
        """A picture [64, 64, 3], its caption, and the camera's azimuth and elevation."""
        parts, scene = self._scene(rng)
        azimuth = rng.uniform(0, 360)
        elevation = rng.uniform(-20, 80) if rng.random() < 0.3 else rng.uniform(-10, 60)
        kind = rng.random()
        background = np.full(3, 0.5) if kind < 0.5 else np.full(3, rng.random()) if kind < 0.75 else rng.random(3)
        rgba = drawn(scene, [part.color for part in parts], azimuth, elevation)
        picture = rgba[..., :3] + (1 - rgba[..., 3:]) * background.astype(np.float32)
        relation = f" {RELATIONS[0] if rng.random() < 0.5 else rng.choice(RELATIONS)} "
        prefix = "" if rng.random() < 0.3 else rng.choice(PREFIXES)
        return picture.clip(0, 1), f"{prefix} {relation.join(p.phrase for p in parts)}".strip(), azimuth, elevation

    def _scene(self, rng: np.random.Generator) -> tuple[list[Part], Scene]:
        kind = rng.random()
        if kind < 0.68:
            parts = [self._object(rng.choice(len(self._models), p=self._weights), rng)]
        elif kind < 0.76:
            parts = [self._solid(rng.choice(SOLIDS), rng)]
        elif kind < 0.82:
            names = [rng.choice([s for s in known if s in SOLIDS]) for known in (shapes.TOPS, shapes.BOTTOMS)]
            parts = [self._solid(name, rng) for name in names]
            return parts, stacked_solids(names, [part.mesh for part in parts])
        else:
            nouns = rng.choice(self._tops), rng.choice(self._bottoms)
            parts = [self._object(rng.choice(self._of[noun]), rng) for noun in nouns]
            return parts, placed([part.mesh for part in parts], [part.color is not None for part in parts])
        return parts, self._alone(parts[0].name, parts[0].color is not None)

    def _object(self, number: int, rng: np.random.Generator) -> Part:
        model, word, color = self._models[number], "", None
        names = [model.noun, *model.synonyms]
        name = rng.choice(names[1:]) if len(names) > 1 and rng.random() < 0.25 else model.noun
        if rng.random() < {"none": 0.0, "main": 0.4, "all": 0.6}[model.paint]:
            word, color = self._color(names, rng)
        elif rng.random() < 0.5 and not {(model.color, one) for one in names} & HELD_OUT:
            word = model.color
        return Part(model.name, self._meshes[model.name], color, _phrase(word, name, rng))

    def _solid(self, solid: str, rng: np.random.Generator) -> Part:
        word, color = self._color([solid], rng)
        return Part(solid, self._solids[solid], color, _phrase(word, solid, rng))

    def _color(self, names: Sequence[str], rng: np.random.Generator) -> tuple[str, NDArray[np.float32]]:
        """A colour that is held out of none of the names, with a little more or less light."""
        allowed = [word for word in COLORS if not {(word, name) for name in names} & HELD_OUT]
        word = allowed[rng.integers(len(allowed))]
        return word, np.array(COLORS[word], np.float32) * np.float32(rng.uniform(0.92, 1.08))


def drawn(
    scene: Scene, colors: Sequence[NDArray[np.float32] | None], azimuth: float, elevation: float
) -> NDArray[np.float32]:
    """A picture [64, 64, 4], premultiplied, of a scene whose parts have these colours, or their own."""
    pose = viewmat(azimuth, elevation)
    values = np.ones((len(scene.faces), 4), np.float32)
    values[:, :3] = scene.colors
    for part, color in enumerate(colors):
        if color is not None:
            own = slice(None) if len(colors) == 1 else scene.parts == part
            values[own, :3] += scene.shades[own, None] * color
    values[:, :3] *= lights(scene, pose)[:, None]
    return means(cover(scene.vertices, scene.faces, pose, _LENS, (SIZE, SIZE), _RAYS), values, _RAYS)


def viewmat(azimuth: float, elevation: float) -> NDArray[np.float64]:
    """World to camera [4, 4] of a camera that looks at the origin, of angles in degrees."""
    a, e = np.deg2rad([azimuth, elevation])
    back = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    right = np.array([-np.sin(a), np.cos(a), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = right, -np.cross(back, right), -back
    pose[2, 3] = _DISTANCE
    return pose


def solid_mesh(solid: str) -> Mesh:
    """Triangles of a solid of the shapes world, whose colour is a word's."""
    from trimesh import convex, creation, util

    bars = [creation.box(1.52 * np.eye(3)[i] + 0.44 * (1 - np.eye(3)[i])) for i in range(3)]
    made = {
        "sphere": lambda: creation.icosphere(3, 0.75),
        "cube": lambda: creation.box((1.04,) * 3),
        "torus": lambda: creation.torus(0.62, 0.24, 48, 24),
        "cone": lambda: creation.cone(0.62, 1.34, sections=48).apply_translation((0, 0, -0.62)),
        "cylinder": lambda: creation.cylinder(0.5, 1.3, sections=48),
        "capsule": lambda: creation.capsule(1.0, 0.34, count=(24, 24)),
        "octahedron": lambda: convex.convex_hull(0.88 * np.concatenate([np.eye(3), -np.eye(3)])),
        "cross": lambda: util.concatenate(bars),
    }[solid]()
    vertices, faces = np.asarray(made.vertices, float), np.asarray(made.faces, np.int32)
    return Mesh(vertices, faces, np.zeros((len(faces), 3), np.float32), np.ones(len(faces), np.float32))


def stacked_solids(names: Sequence[str], meshes: Sequence[Mesh]) -> Scene:
    """Two solids as the shapes world stacks them."""
    placements = layout_parts(tuple(names))
    moved = [
        Mesh(scale * mesh.vertices + [0.0, 0.0, up], mesh.faces, mesh.colors, mesh.shades)
        for mesh, (_, scale, up) in zip(meshes, placements, strict=True)
    ]
    scenes = [placed([mesh], [True]) for mesh in moved]
    first = len(scenes[0].vertices)
    return Scene(
        np.concatenate([scene.vertices for scene in scenes]),
        np.concatenate([scenes[0].faces, scenes[1].faces + np.int32(first)]),
        np.repeat([0, 1], [len(scene.faces) for scene in scenes]),
        *(np.concatenate([getattr(scene, name) for scene in scenes]) for name in ("colors", "shades", "normals")),
    )


def _phrase(word: str, name: str, rng: np.random.Generator) -> str:
    phrase = f"{word} {name}".strip()
    article = "an" if phrase[0] in "aeiou" else "a"
    determiner = article if rng.random() < 0.8 else rng.choice(["", "the", "one"])
    return f"{determiner} {phrase}".strip()
