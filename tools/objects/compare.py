"""How far two folders of meshes are from each other, model by model, by pictures of both from the same cameras."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from gsdistill.disk.read import read_text
from gsdistill.scene.viewpoints import all_around
from gsdistill.worlds.objects.catalogue import Model
from gsdistill.worlds.objects.drawing import draw, placed
from gsdistill.worlds.objects.meshes import mesh_of

__all__ = ["Difference", "compare", "told"]

VIEWS, SIZE, SIDE = 6, 64, 3  # cameras on all sides, pixels, rays along each side of one
FAR = 0.05  # of a mean difference: a model that one should look at


@dataclass(frozen=True)
class Difference:
    """How far the pictures of one model are apart, on the mean of all cameras."""

    name: str
    picture: float  # mean absolute difference of colours and coverage, 0..1, where either model is seen
    silhouette: float  # 1 - intersection over union


def compare(first: Path, second: Path) -> list[Difference]:
    """The differences of the models that both folders have, the greatest first."""
    one, other = (json.loads(read_text(place / "objects.json")) for place in (first, second))
    known = {record["id"] for record in other}
    shared = [_model(record["id"]) for record in one if record["id"] in known]
    found = [
        difference(_pictures(model, first), _pictures(model, second), model.name) for model in track(shared, "drawing")
    ]
    return sorted(found, key=lambda difference: difference.picture, reverse=True)


def difference(one: Tensor, other: Tensor, name: str) -> Difference:
    """Of two stacks of pictures [B, 4, H, W] whose last channel is the coverage."""
    union = one[:, 3].maximum(other[:, 3])
    common = one[:, 3].minimum(other[:, 3])
    apart = (one - other).abs().mean(1).sum() / union.sum()
    return Difference(name, float(apart), float(1 - common.sum() / union.sum()))


def told(differences: Sequence[Difference]) -> str:
    """The figures of all models in some lines, and those that differ most."""
    if not differences:
        return "the folders have no model in common"
    far = np.array([one.picture for one in differences])
    apart = np.mean([one.silhouette for one in differences])
    lines = [
        f"{len(far)} models in both: difference of pictures {far.mean():.4f} on the mean, median {np.median(far):.4f}, "
        f"mean 1 - IoU {apart:.4f}; {(far > FAR).sum()} differ by more than {FAR}",
        *(f"  {one.name}: {one.picture:.3f}, 1 - IoU {one.silhouette:.3f}" for one in differences if one.picture > FAR),
    ]
    return "\n".join(lines)


def _model(name: str) -> Model:
    """A model as it is, which no word repaints."""
    return Model(name, noun="", synonyms=(), color="", paint="none", author="", licence="", source="")


def _pictures(model: Model, place: Path) -> Tensor:
    buffers = draw(placed([mesh_of(model, place)], [False]), all_around(VIEWS, SIZE), SIDE)
    return torch.cat([part for part in (buffers.fixed, buffers.coverage) if part is not None], 1)
