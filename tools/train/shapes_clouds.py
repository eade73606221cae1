"""Training data of the shapes world's Point-E: coloured points on surfaces, with captions; functions of their key."""

from __future__ import annotations

import random

import numpy as np
import torch
from jaxtyping import Float
from shapes_data import colored
from torch import Tensor

from gsdistill.learning.stream import Key
from gsdistill.point_e.transformer import POINT_BIASES, POINT_SCALES
from gsdistill.worlds.shapes.captions import COLORS, caption
from gsdistill.worlds.shapes.surface import nearest_parts, sample_surface
from gsdistill.worlds.shapes.world import every_layout

__all__ = ["Clouds", "values"]

# Solids with thin or many parts are drawn more often, stacks are five of nine objects.
_WEIGHTS = {"table": 1.5, "chair": 2.0, "mug": 2.0, "star": 1.5, "ring": 1.3, "cross": 1.3}
_STACK_WEIGHT = 0.55


class Clouds:
    """Points of every object of the world, drawn once."""

    def __init__(self, seed: int, count: int) -> None:
        layouts = every_layout()
        rng = np.random.default_rng(seed)
        self._layouts = list(layouts)
        self._points = np.stack([sample_surface(parts, count, rng) for parts in layouts.values()]).astype(np.float32)
        self._parts = np.stack(
            [nearest_parts(p, x) for p, x in zip(layouts.values(), self._points.astype(float), strict=True)]
        )
        weights = np.array([_weight(names) for names in self._layouts])
        self._probabilities = weights / weights.sum()

    def batch(self, clouds: int, points: int, key: Key) -> tuple[list[str], Float[Tensor, "B 6 N"]]:
        """Captions, and as many clouds in the diffusion's range: positions are the world's, colours -1..1.

        The points of a cloud are independent, so any of them can serve for any purpose.
        """
        rng = np.random.default_rng(key)
        words = random.Random(int(rng.integers(2**62)))
        chosen = rng.choice(len(self._layouts), size=clouds, p=self._probabilities)
        things = [colored(self._layouts[i], words) for i in chosen]
        picked = rng.integers(self._points.shape[1], size=(clouds, points))
        colors = np.zeros((clouds, 2, 3), dtype=np.float32)
        for i, parts in enumerate(things):
            colors[i, : len(parts)] = [COLORS[part.color] for part in parts]
        where = self._points[chosen[:, None], picked]
        paint = np.take_along_axis(colors, self._parts[chosen[:, None], picked][..., None], axis=1)
        cloud = np.concatenate([where, 2.0 * paint - 1.0], axis=-1).transpose(0, 2, 1)
        return [caption(parts, words) for parts in things], torch.from_numpy(np.ascontiguousarray(cloud))


def values(x: Float[Tensor, "B 6 N"]) -> Float[Tensor, "B 6 N"]:
    """Point-E's values of the diffusion's x: positions halved, colours 0..255."""
    return (x - torch.tensor(POINT_BIASES)[:, None]) / torch.tensor(POINT_SCALES)[:, None]


def _weight(names: tuple[str, ...]) -> float:
    return _STACK_WEIGHT if len(names) == 2 else _WEIGHTS.get(names[0], 1.0)
