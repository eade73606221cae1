"""Judge the objects prior itself against the meshes, and draw its samples.

    GSDISTILL_OBJECTS=FOLDER python tools/train/check_objects_prior.py --prior assets/objects-prior

300 (prompt, camera) pairs of the nouns that its card calls learnt are sampled by DDIM: 150 single objects, 90 of pairs
of colour and noun that training never saw, 60 stacks. A sample's background is the median of its border, its silhouette
where it differs from that by more than 0.08 in a channel, as far as the truth does. Its name is the nearest of all
models, repainted where the prompt names a colour, seen from the same camera over the same background, in mean square
difference; of a stack the nearest of all tops on the prompt's bottom. The azimuth error is that of the nearest of 72
views of the nearest true model, of vehicles, animals and furniture.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from check_shapes_prior import cameras_at, sample
from jaxtyping import Float
from objects_data import HELD_OUT
from PIL import Image
from torch import Tensor

from gsdistill.cli.flags import settings_of
from gsdistill.core.structs import Cameras
from gsdistill.disk.write import write_json
from gsdistill.evaluation.statistics import Interval, wilson
from gsdistill.prior.base import Prior
from gsdistill.prior.loading import load_prior
from gsdistill.worlds.base import Layout, Thing, paint
from gsdistill.worlds.objects import Objects
from gsdistill.worlds.objects.captions import COLORS
from gsdistill.worlds.objects.catalogue import models_of, words

WORLD = Objects()
TURNED = ("vehicles", "animals", "furniture")  # categories whose pictures tell the azimuth
EDGE = 0.08


@dataclass(frozen=True)
class Settings:
    """What to check."""

    # folder or name of the prior
    prior: str = "assets/objects-prior"
    # where figures.json, samples.png and blind.png are written; next to the weights, if nowhere
    output: Path | None = None
    # guidance scale of the samples
    guidance_scale: float = 3.0
    # DDIM steps
    steps: int = 30
    # pairs of each kind: single objects, unseen pairs of colour and noun, stacks
    pairs: tuple[int, int, int] = (150, 90, 60)
    seed: int = 2026


@dataclass(frozen=True)
class Pair:
    """A prompt and a camera."""

    kind: str
    things: tuple[Thing, ...]
    azimuth: float
    elevation: float


def pairs_of(settings: Settings, learnt: Sequence[str]) -> list[Pair]:
    """What is sampled, of the nouns that a prior has learnt; of all if there are none."""
    rng = random.Random(settings.seed)
    every = [noun for group in words().categories.values() for noun in group], words().tops, words().bottoms
    nouns, tops, bottoms = ([noun for noun in known if noun in learnt or not learnt] for known in every)
    unlike = [pair for pair in sorted(HELD_OUT) if pair[1] in nouns]
    seen, unseen, stacks = settings.pairs
    things: list[tuple[str, tuple[Thing, ...]]] = []
    while len(things) < seen:
        noun = rng.choice(nouns)
        colors = [word for word in COLORS if (word, noun) not in HELD_OUT]
        color = rng.choice(colors) if rng.random() < 0.5 and any(m.paint != "none" for m in models_of(noun)) else ""
        things.append(("seen", (Thing(color, noun),)))
    things += [("unseen", (Thing(*unlike[i % len(unlike)]),)) for i in range(unseen)]
    for _ in range(stacks):
        pair = Thing("", rng.choice(tops)), Thing("", rng.choice(bottoms))
        things.append(("stacks", pair))
    return [Pair(kind, one, rng.uniform(0, 360), rng.uniform(-10, 50)) for kind, one in things]


def pictures_of(layout: Layout, things: tuple[Thing, ...], cameras: Cameras, background: Tensor) -> Tensor:
    """The true pictures [B, H, W, 3] of a layout over one background."""
    own = WORLD.things(layout, [thing.color for thing in things])
    return paint(WORLD.trace(layout, cameras, 2), WORLD.colors(own), background.expand(len(cameras), 3))[0]


def backdrop(image: Float[Tensor, "H W 3"]) -> Float[Tensor, "3"]:
    """The colour around the object: the median of the picture's border."""
    return torch.cat([image[0], image[-1], image[:, 0], image[:, -1]]).median(0).values


def judged(image: Float[Tensor, "H W 3"], pair: Pair) -> dict[str, object]:
    """What one sample shows."""
    background = backdrop(image)
    camera = cameras_at([pair.azimuth], [pair.elevation], len(image))

    def error(layout: Layout) -> float:
        return float((pictures_of(layout, pair.things, camera, background)[0] - image).square().mean())

    rivals = WORLD.rivals(pair.things)
    nearest = min(rivals, key=error)
    best = min(WORLD.meant(pair.things), key=error)
    true = pictures_of(best, pair.things, camera, background)[0]
    ours, shown = ((picture - background).abs().amax(-1) > EDGE for picture in (image, true))
    named = WORLD.things(nearest, [thing.color for thing in pair.things])
    row: dict[str, object] = {
        "prompt": WORLD.caption(pair.things),
        "kind": pair.kind,
        "name": WORLD.caption(named),
        "right": WORLD.agrees(named[:1], pair.things[:1]),
        "iou": float((ours & shown).sum() / (ours | shown).sum().clamp_min(1)),
        "psnr": float(-10 * (true - image).square().mean().log10()),
    }
    if pair.kind != "stacks" and any(pair.things[0].shape in words().categories[group] for group in TURNED):
        views = cameras_at([pair.azimuth + 5.0 * k for k in range(72)], [pair.elevation] * 72, len(image))
        turned = pictures_of(best, pair.things, views, background)
        off = 5.0 * int((turned - image).square().sum((1, 2, 3)).argmin())
        row["azimuth_error"] = min(off, 360.0 - off)
    return row


def sampled(prior: Prior, pairs: Sequence[Pair], settings: Settings) -> Float[Tensor, "B H W 3"]:
    """A sample of each pair, twenty at a time."""
    images = []
    for first in range(0, len(pairs), 20):
        some = pairs[first : first + 20]
        cameras = cameras_at([p.azimuth for p in some], [p.elevation for p in some], prior.image_size)
        images.append(sample(prior, [WORLD.caption(p.things) for p in some], cameras, settings))
    return torch.cat(images)


def main(settings: Settings) -> None:
    """Sample, judge, and write figures.json, samples.png and blind.png."""
    prior = load_prior(settings.prior)
    pairs = pairs_of(settings, prior.origin.card.learnt)
    images = sampled(prior, pairs, settings)
    rows = [judged(image, pair) for image, pair in zip(images, pairs, strict=True)]
    output = settings.output or prior.folder
    report(rows, settings, output / "figures.json")
    draw(images, pairs, output)


def report(rows: Sequence[dict[str, object]], settings: Settings, path: Path) -> None:
    """Print and write the means, with intervals of 95 %."""
    groups = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        own = [row for row in rows if row["kind"] == kind]
        right = sum(bool(row["right"]) for row in own)
        interval = wilson(right, len(own)) or Interval(0.0, 0.0, 1.0)
        means = {name: round(float(np.mean([row[name] for row in own])), 4) for name in ("iou", "psnr")}
        groups[kind] = {"pairs": len(own), "right": right / len(own), "interval": asdict(interval), **means}
    errors = [row["azimuth_error"] for row in rows if "azimuth_error" in row]
    figures = {
        "guidance_scale": settings.guidance_scale,
        "ddim_steps": settings.steps,
        "groups": groups,
        "azimuth_error_degrees": {
            "median": float(np.median(errors)), "below 15": float(np.mean(np.array(errors) < 15)), "views": len(errors),
        },
        "wrong": sorted(f"{row['prompt']} -> {row['name']}" for row in rows if not row["right"]),
    }  # fmt: skip
    write_json(path, figures)
    print(json.dumps({key: value for key, value in figures.items() if key != "wrong"}, indent=2))


def draw(images: Float[Tensor, "B H W 3"], pairs: Sequence[Pair], output: Path) -> None:
    """samples.png: 60 samples, each beside the nearest truth; blind.png: the same 60 shuffled, without prompts."""
    rng = random.Random(0)
    kinds = {kind: [i for i, pair in enumerate(pairs) if pair.kind == kind] for kind in ("seen", "unseen", "stacks")}
    chosen = [i for kind, count in (("seen", 40), ("unseen", 9), ("stacks", 11)) for i in kinds[kind][:count]]
    tiles = []
    for i in chosen:
        image, pair = images[i], pairs[i]
        background = backdrop(image)
        camera = cameras_at([pair.azimuth], [pair.elevation], len(image))
        shown = [pictures_of(layout, pair.things, camera, background)[0] for layout in WORLD.meant(pair.things)]
        tiles.append(torch.cat([image, min(shown, key=lambda one: float((one - image).square().mean()))], 1))
    write_sheet(tiles, 6, output / "samples.png")
    write_json(output / "samples.json", {"prompts": [WORLD.caption(pairs[i].things) for i in chosen]})
    rng.shuffle(chosen)
    write_sheet([images[i] for i in chosen], 10, output / "blind.png")
    write_json(output / "blind.json", {"prompts": [WORLD.caption(pairs[i].things) for i in chosen]})


def write_sheet(tiles: Sequence[Tensor], columns: int, path: Path) -> None:
    """Write pictures of one size side by side, twice as large."""
    tiles = [*tiles, *[torch.ones_like(tiles[0])] * (-len(tiles) % columns)]
    rows = [torch.cat(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)]
    sheet = (torch.cat(rows).clamp(0, 1) * 255).byte().numpy()
    size = sheet.shape[1] * 2, sheet.shape[0] * 2
    Image.fromarray(sheet).resize(size, Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main(settings_of(Settings, sys.argv[1:], "check_objects_prior.py"))
