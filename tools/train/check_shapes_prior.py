"""Judge the shapes prior itself against the ray-caster, and draw its samples.

    python tools/train/check_shapes_prior.py --prior assets/shapes-prior

60 (prompt, camera) pairs are sampled by DDIM; the first 14 prompts use shape-colour pairs that training never saw where
there is one. A sample's silhouette is where it differs from its own background (the median of its border) by more than
0.12 in a channel; its name is the nearest of all 4,389 objects of the world, seen from the same camera over the same
background, in mean square difference. The azimuth error is that of the nearest of 72 views of the true object.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler
from jaxtyping import Float
from PIL import Image, ImageDraw
from shapes_data import HELD_OUT
from torch import Tensor

from gsdistill.cli.flags import settings_of
from gsdistill.core.structs import Cameras, Embedding
from gsdistill.disk.write import write_json
from gsdistill.prior.base import Prior
from gsdistill.prior.loading import load_prior
from gsdistill.scene.viewpoints import look_at_origin
from gsdistill.worlds.base import Thing, paint
from gsdistill.worlds.shapes.captions import BOTTOMS, COLORS, SHAPES, TOPS, object_name
from gsdistill.worlds.shapes.raycast import trace
from gsdistill.worlds.shapes.world import build, every_layout

DISTANCE, FOV = 3.2, 40.0
ASYMMETRIC = ("chair", "mug")  # solids whose picture names every azimuth


@dataclass(frozen=True)
class Settings:
    """What to check."""

    # folder or name of the prior
    prior: str = "assets/shapes-prior"
    # guidance scale of the samples
    guidance_scale: float = 3.0
    # DDIM steps
    steps: int = 40
    seed: int = 0


def pairs(count: int, seed: int) -> list[tuple[tuple[Thing, ...], float, float]]:
    """Objects with an azimuth and an elevation: every solid three times, then stacks."""
    rng = random.Random(seed)
    objects: list[tuple[Thing, ...]] = [(Thing(color, shape),) for color, shape in sorted(HELD_OUT)]
    singles = 3 * len(SHAPES) - len(objects)
    objects += [(Thing(rng.choice(list(COLORS)), SHAPES[i % len(SHAPES)]),) for i in range(singles)]
    while len(objects) < count:
        top, bottom = rng.sample(list(COLORS), 2)
        objects.append((Thing(top, rng.choice(TOPS)), Thing(bottom, rng.choice(BOTTOMS))))
    return [(things, rng.uniform(0, 360), rng.uniform(-10, 60)) for things in objects]


def cameras_at(azimuths: list[float], elevations: list[float], size: int) -> Cameras:
    """Cameras of the prior's world."""
    ones = torch.ones(len(azimuths))
    return look_at_origin(torch.tensor(azimuths), torch.tensor(elevations), DISTANCE * ones, FOV * ones, size)


def sample(prior: Prior, prompts: list[str], cameras: Cameras, settings: Settings) -> Float[Tensor, "B H W 3"]:
    """DDIM samples, one per prompt and camera, as images in 0..1."""
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    scheduler.set_timesteps(settings.steps)
    texts = [prior.encode_text(prompt, "") for prompt in prompts]
    branches = {
        branch: Embedding.join([getattr(text, branch) for text in texts]) for branch in ("positive", "negative")
    }
    condition = replace(prior.condition(texts[0], cameras), branches=branches)
    x = torch.randn(len(prompts), *prior.latent_shape, generator=torch.Generator().manual_seed(settings.seed))
    for t in scheduler.timesteps:
        noise = prior.noise(x, t.expand(len(x)), condition).guided(settings.guidance_scale)
        x = scheduler.step(noise, int(t), x).prev_sample
    return prior.decode(x)


def nearest_name(image: Float[Tensor, "H W 3"], background: Float[Tensor, "3"], cameras: Cameras) -> str:
    """The object of the world whose picture from this camera is nearest."""
    palette = torch.tensor(list(COLORS.values()))
    best: tuple[float, str] = (1e9, "")
    for shapes, parts in every_layout().items():
        seen = trace(parts, cameras, 2)
        rest = image - (1 - seen.coverage[0].sum(0))[..., None] * background
        shade = seen.shade[0].flatten(1)
        linear = shade @ rest.reshape(-1, 3) @ palette.T
        gram, colors = shade @ shade.T, palette @ palette.T
        error = (rest**2).sum() + gram[0, 0] * colors.diagonal() - 2 * linear[0]
        if len(shapes) == 2:
            second = gram[1, 1] * colors.diagonal() - 2 * linear[1]
            error = error[:, None] + second[None, :] + 2 * gram[0, 1] * colors
        flat = int(error.argmin())
        if float(error.min()) < best[0]:
            indices = (flat // len(COLORS), flat % len(COLORS)) if len(shapes) == 2 else (flat,)
            things = tuple(Thing(list(COLORS)[i], shape) for i, shape in zip(indices, shapes, strict=True))
            best = (float(error.min()), object_name(things))
    return best[1]


def azimuth_error(
    image: Tensor, background: Tensor, things: tuple[Thing, ...], azimuth: float, elevation: float
) -> float:
    """Degrees between the camera's azimuth and that of the true view which the sample is nearest to."""
    candidates = [azimuth + 5.0 * k for k in range(72)]
    thing = build(things)
    seen = trace(thing.parts, cameras_at(candidates, [elevation] * 72, image.shape[0]), 2)
    views, _ = paint(seen, torch.from_numpy(thing.colors), background.expand(72, 3))
    off = 5.0 * int((views - image).square().sum((1, 2, 3)).argmin())
    return min(off, 360.0 - off)


def main(settings: Settings) -> None:
    """Sample, judge, write figures.json and samples.png next to the weights."""
    prior = load_prior(settings.prior)
    chosen = pairs(60, settings.seed)
    names = [object_name(things) for things, _, _ in chosen]
    cameras = cameras_at([a for _, a, _ in chosen], [e for _, _, e in chosen], prior.image_size)
    images = sample(prior, names, cameras, settings)
    rows = []
    for image, (things, azimuth, elevation), name in zip(images, chosen, names, strict=True):
        border = torch.cat([image[0], image[-1], image[:, 0], image[:, -1]])
        background = border.median(0).values
        one = cameras_at([azimuth], [elevation], prior.image_size)
        true = trace(build(things).parts, one).coverage[0].sum(0) > 0.5
        ours = (image - background).abs().amax(-1) > 0.12
        row = {"prompt": name, "iou": float((true & ours).sum() / (true | ours).sum())}
        row["name"] = nearest_name(image, background, one)
        row["held_out"] = any((t.color, t.shape) in HELD_OUT for t in things)
        if things[0].shape in ASYMMETRIC:
            row["azimuth_error"] = azimuth_error(image, background, things, azimuth, elevation)
        rows.append(row)
    report(rows, settings)
    draw(prior, settings)
    draw_loss(Path(settings.prior))


def report(rows: list[dict], settings: Settings) -> None:
    """Print and write the means."""
    unseen = [r for r in rows if r["held_out"]]
    groups = {"all": rows, "unseen pairs": unseen, "single solids": rows[:42], "stacks": rows[42:]}
    figures = {
        group: {
            "pairs": len(members),
            "silhouette_iou": round(float(np.mean([r["iou"] for r in members])), 4),
            "name_accuracy": round(float(np.mean([r["name"] == r["prompt"] for r in members])), 4),
        }
        for group, members in groups.items()
    }
    errors = [r["azimuth_error"] for r in rows if "azimuth_error" in r]
    summary = {"guidance_scale": settings.guidance_scale, "ddim_steps": settings.steps, "groups": figures}
    off = {"median": float(np.median(errors)), "largest": max(errors), "views": len(errors)}
    summary["azimuth_error_degrees"] = off
    summary["wrong"] = [f"{r['prompt']} -> {r['name']}" for r in rows if r["name"] != r["prompt"]]
    write_json(Path(settings.prior) / "figures.json", summary)
    print(json.dumps(summary, indent=2))


def draw(prior: Prior, settings: Settings) -> None:
    """samples.png: 14 solids and 4 stacks, eight azimuths each."""
    colors = list(COLORS)
    prompts = [object_name((Thing(colors[i % 11], shape),)) for i, shape in enumerate(SHAPES)]
    prompts += ["a red cube on a blue sphere", "a yellow cone on a green cylinder", "a pink torus on a brown table",
                "a white octahedron on a purple torus"]  # fmt: skip
    rows = []
    for prompt in prompts:
        cameras = cameras_at([45.0 * k for k in range(8)], [20.0] * 8, prior.image_size)
        rows.append(torch.cat(list(sample(prior, [prompt] * 8, cameras, settings)), dim=1))
    sheet = (torch.cat(rows) * 255).byte().numpy()
    size = (sheet.shape[1] * 2, sheet.shape[0] * 2)
    Image.fromarray(sheet).resize(size, Image.Resampling.NEAREST).save(Path(settings.prior) / "samples.png")


def draw_loss(folder: Path, width: int = 640, height: int = 320, margin: int = 44) -> None:
    """loss.png: the training loss against the steps, both axes logarithmic."""
    history = json.loads((folder / "training.json").read_text())["loss"]
    steps, losses = np.log10(np.array(history).T)
    bottom, top = np.floor(losses.min()), np.ceil(losses.max())
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)

    def place(step: float, loss: float) -> tuple[float, float]:
        across = (step - steps[0]) / (steps[-1] - steps[0])
        return margin + across * (width - 2 * margin), height - margin - (loss - bottom) / (top - bottom) * (
            height - 2 * margin
        )

    for power in range(int(bottom), int(top) + 1):
        left, right = place(steps[0], power), place(steps[-1], power)
        pen.line([left, right], fill="#cccccc")
        pen.text((4, left[1] - 6), f"1e{power}", fill="black")
    pen.line([place(step, loss) for step, loss in zip(steps, losses, strict=True)], fill="#c02020", width=2)
    for step in (steps[0], steps[-1]):
        pen.text((place(step, bottom)[0] - 14, height - margin + 6), f"{10**step:.0f}", fill="black")
    pen.text((width // 2 - 60, height - 18), "optimiser steps", fill="black")
    pen.text((margin, 12), "mean squared error of the noise", fill="black")
    image.save(folder / "loss.png")


if __name__ == "__main__":
    main(settings_of(Settings, sys.argv[1:], "check_shapes_prior.py"))
