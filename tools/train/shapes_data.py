"""Training data of the shapes prior: colourless ray-cast buffers, coloured and captioned when a batch is drawn.

A buffer holds shade and coverage of up to two parts as bytes (raycast.py), so colours, backgrounds and captions cost
nothing to vary. A batch is a function of its key.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from gsdistill.disk.write import atomic_path
from gsdistill.learning.stream import Key
from gsdistill.scene.viewpoints import look_at_origin
from gsdistill.worlds.base import Thing
from gsdistill.worlds.shapes.captions import COLORS, caption
from gsdistill.worlds.shapes.raycast import trace
from gsdistill.worlds.shapes.world import every_layout

__all__ = ["HELD_OUT", "Batch", "Dataset", "colored"]

# Never trained on, alone or in a stack: the share of the world that shows generalisation.
HELD_OUT = frozenset(
    {
        ("purple", "cube"), ("cyan", "torus"), ("brown", "chair"), ("pink", "star"), ("orange", "pyramid"),
        ("red", "mug"), ("green", "cone"),
    }
)  # fmt: skip
# Solids whose picture tells the azimuth, or that have thin parts, are drawn more often.
_WEIGHTS = {"cube": 1.5, "star": 2.0, "table": 1.7, "chair": 2.0, "mug": 2.0, "ring": 1.7, "pyramid": 1.3, "cross": 1.5}
_DISTANCE, _FOV, _ELEVATION = 3.2, 40.0, (-20.0, 80.0)


@dataclass(frozen=True)
class Batch:
    """Images [B, H, W, 3] in 0..1, their captions (empty where dropped), and the cameras' angles [B] in degrees."""

    images: Float[Tensor, "B H W 3"]
    captions: list[str]
    azimuths: Float[Tensor, "B"]
    elevations: Float[Tensor, "B"]


class Dataset:
    """Buffers of every object of the world from random cameras, kept in one file."""

    def __init__(self, folder: Path, size: int, single_views: int, stack_views: int, seed: int) -> None:
        path = folder / f"buffers-{size}px-{single_views}-{stack_views}-seed{seed}.npz"
        if not path.exists():
            _write_buffers(path, size, single_views, stack_views, seed)
        file = np.load(path)
        self._layouts = list(every_layout())
        self._offsets: NDArray[np.int64] = file["offsets"]
        self._shade, self._coverage = file["shade"], file["coverage"]
        self._angles: NDArray[np.float32] = file["angles"]
        weights = np.array([_weight(names) for names in self._layouts])
        self._probabilities = weights / weights.sum()

    def batch(self, count: int, dropout: float, key: Key) -> Batch:
        """The batch of a key: ``count`` pictures, their captions empty with probability ``dropout``."""
        rng = np.random.default_rng(key)
        words = random.Random(int(rng.integers(2**62)))
        chosen = rng.choice(len(self._layouts), size=count, p=self._probabilities)
        views = (rng.random(count) * (self._offsets[chosen + 1] - self._offsets[chosen])).astype(np.int64)
        rows = self._offsets[chosen] + views
        things = [colored(self._layouts[i], words) for i in chosen]
        colors = np.zeros((count, 2, 3), dtype=np.float32)
        for i, parts in enumerate(things):
            colors[i, : len(parts)] = [COLORS[part.color] for part in parts]
        shade = self._shade[rows].astype(np.float32) / 255.0
        alpha = self._coverage[rows].astype(np.float32).sum(1) / 255.0
        images = np.einsum("bphw,bpc->bhwc", shade, colors)
        images += (1.0 - alpha)[..., None] * _backgrounds(count, rng)[:, None, None, :]
        captions = ["" if words.random() < dropout else caption(parts, words) for parts in things]
        azimuths, elevations = torch.from_numpy(self._angles[rows].T.copy())
        return Batch(torch.from_numpy(images), captions, azimuths, elevations)


def _weight(names: tuple[str, ...]) -> float:
    if len(names) == 2:
        return 0.32
    return _WEIGHTS.get(names[0], 1.0)


def colored(names: tuple[str, ...], rng: random.Random) -> tuple[Thing, ...]:
    """The solids in random colours, no pair of them held out."""
    while True:
        things = tuple(Thing(rng.choice(list(COLORS)), name) for name in names)
        if not any((t.color, t.shape) in HELD_OUT for t in things):
            return things


def _backgrounds(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Half of them mid grey, a quarter any grey, a quarter any colour."""
    kind = rng.random((count, 1))
    grey = np.where(kind < 0.5, 0.5, rng.random((count, 1)))
    return np.where(kind < 0.75, grey, rng.random((count, 3))).astype(np.float32)


def _write_buffers(path: Path, size: int, single_views: int, stack_views: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    layouts = every_layout()
    counts = [single_views if len(names) == 1 else stack_views for names in layouts]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    shade = np.zeros((offsets[-1], 2, size, size), dtype=np.uint8)
    coverage = np.zeros_like(shade)
    angles = np.zeros((offsets[-1], 2), dtype=np.float32)
    for index, parts in enumerate(layouts.values()):
        count = counts[index]
        azimuths = 360.0 * torch.rand(count, generator=generator)
        elevations = _ELEVATION[0] + (_ELEVATION[1] - _ELEVATION[0]) * torch.rand(count, generator=generator)
        ones = torch.ones(count)
        cameras = look_at_origin(azimuths, elevations, _DISTANCE * ones, _FOV * ones, size)
        buffers = trace(parts, cameras)
        rows = slice(offsets[index], offsets[index + 1])
        shade[rows, : len(parts)] = (buffers.shade * 255.0).round().byte().numpy()
        coverage[rows, : len(parts)] = (buffers.coverage * 255.0).round().byte().numpy()
        angles[rows] = torch.stack([azimuths, elevations], 1).numpy()
        print(f"ray-cast {index + 1} of {len(layouts)} objects", flush=True)
    with atomic_path(path) as draft:
        np.savez(draft, shade=shade, coverage=coverage, angles=angles, offsets=offsets)
