"""Find which nouns the objects prior has learnt, and write them into its card.

    GSDISTILL_OBJECTS=FOLDER python tools/train/check_objects_nouns.py --prior assets/objects-prior

Every noun is sampled from four cameras by DDIM. The name of a sample is the nearest of all models from the same camera,
as in check_objects_prior.py. A noun whose name is right in at least three of the four is learnt: the card lists it, and
a prompt with another noun is told so. The samples have seeds and cameras of their own, so that the figures of
check_objects_prior.py, over the nouns that the card lists, are of samples that chose nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from check_objects_prior import WORLD, backdrop
from check_shapes_prior import cameras_at, sample
from jaxtyping import Float
from torch import Tensor

from gsdistill.cli.flags import settings_of
from gsdistill.disk.read import read_json
from gsdistill.disk.write import write_json
from gsdistill.prior.base import Prior
from gsdistill.prior.loading import load_prior
from gsdistill.worlds.base import Thing, paint
from gsdistill.worlds.objects.captions import SOLIDS
from gsdistill.worlds.objects.catalogue import models, words

AZIMUTHS, ELEVATIONS = [30.0, 120.0, 210.0, 300.0], [10.0, 30.0, 10.0, 30.0]
LEAST = 3  # right names of four


@dataclass(frozen=True)
class Settings:
    """What to check."""

    # folder of the prior
    prior: Path = Path("assets/objects-prior")
    # where nouns.json is written; the prior's folder and its card, if nowhere
    output: Path | None = None
    guidance_scale: float = 3.0
    # DDIM steps
    steps: int = 30
    seed: int = 7


def every_model(size: int) -> dict[str, tuple[Tensor, Tensor]]:
    """The pictures of all models from the four cameras, over black, and their alphas, by the models' names."""
    cameras, black = cameras_at(AZIMUTHS, ELEVATIONS, size), torch.zeros(4, 3)
    pictures = {}
    for name in models():
        layout = (name,)
        pictures[name] = paint(WORLD.trace(layout, cameras, 2), WORLD.colors(WORLD.things(layout, [""])), black)
    return pictures


def named(images: Float[Tensor, "4 H W 3"], pictures: dict[str, tuple[Tensor, Tensor]]) -> list[str]:
    """The noun of the nearest model of each of four samples."""
    bodies, alphas = (torch.stack([pair[i] for pair in pictures.values()]) for i in (0, 1))
    nouns = []
    for view, image in enumerate(images):
        shown = bodies[:, view] + (1 - alphas[:, view]) * backdrop(image)
        nearest = int((shown - image).square().mean((1, 2, 3)).argmin())
        nouns.append(models()[[*pictures][nearest]].noun)
    return nouns


def judged(prior: Prior, settings: Settings) -> dict[str, list[str]]:
    """The nouns that the four samples of each noun show."""
    pictures, found = every_model(prior.image_size), {}
    cameras = cameras_at(AZIMUTHS, ELEVATIONS, prior.image_size)
    for group, nouns in words().categories.items():
        for noun in nouns:
            prompt = WORLD.caption((Thing("", noun),))
            found[noun] = named(sample(prior, [prompt] * 4, cameras, settings), pictures)
        print(group, sum(right(noun, found[noun]) for noun in nouns), "of", 4 * len(nouns), flush=True)
    return found


def right(noun: str, shown: Sequence[str]) -> int:
    """How many of the nouns that samples show are a noun, or one that its name may mean."""
    return sum(WORLD.agrees((Thing("", one),), (Thing("", noun),)) for one in shown)


def main(settings: Settings) -> None:
    """Judge, and write nouns.json and the card."""
    found = judged(load_prior(str(settings.prior)), settings)
    counts = {noun: right(noun, shown) for noun, shown in found.items()}
    learnt = [*SOLIDS, *(noun for noun, count in counts.items() if count >= LEAST)]
    output = settings.output or settings.prior
    write_json(output / "nouns.json", {"guidance_scale": settings.guidance_scale, "shown": found})
    print(f"{len(learnt) - len(SOLIDS)} of {len(counts)} nouns are learnt, {sum(counts.values())} samples are right")
    if settings.output is None:
        card = settings.prior / "gsdistill.json"
        write_json(card, {**read_json(card), "learnt": learnt})


if __name__ == "__main__":
    main(settings_of(Settings, sys.argv[1:], "check_objects_nouns.py"))
