"""Fit the reference splats of the models of everyday objects: assets/objects-splats/splats.npz.

    GSDISTILL_OBJECTS=FOLDER python tools/objects/splats.py --work WORK [--models chair_01 burger_01]

Each begins with points on what can be seen of the mesh, and follows 48 true pictures over random backgrounds. It is
judged, as the file holds it, at 16 other cameras. A model takes some ten seconds of a core; WORK keeps those that are
done, so that the same command goes on. Without ``--models`` all are fitted and the file is written.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gsdistill.cli.flags import settings_of
from gsdistill.core.errors import did_you_mean
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import SH_C0, Cameras, Gaussians
from gsdistill.disk.write import atomic_path, write_json
from gsdistill.renderer.base import render
from gsdistill.scene.viewpoints import golden_azimuths, look_at_origin
from gsdistill.worlds.base import paint
from gsdistill.worlds.objects.catalogue import models
from gsdistill.worlds.objects.drawing import draw as draw_meshes
from gsdistill.worlds.objects.drawing import placed
from gsdistill.worlds.objects.meshes import VARIABLE, Mesh, folder, mesh_of
from gsdistill.worlds.objects.splats import FILE, LUMINANCE, Reference, draw, merge, split
from gsdistill.worlds.objects.surface import scatter, seen_faces

RATES = {"means": 2e-3, "quats": 2e-2, "scales": 2e-2, "opacities": 5e-2, "sh": 2e-2}
SIZE, VIEWS, BATCH = 96, 48, 4


@dataclass(frozen=True)
class Settings:
    """How to fit."""

    # folder that keeps what is done
    work: Path
    # models to fit; all, if none
    models: tuple[str, ...] = ()
    # Gaussians of a model
    gaussians: int = bounded(900, low=1)
    # steps of a model
    steps: int = bounded(400, low=1)


def cameras_of(azimuths: Tensor, elevations: Tensor) -> Cameras:
    """Cameras of the world."""
    ones = torch.ones(len(azimuths))
    return look_at_origin(azimuths, elevations, 3.2 * ones, 40.0 * ones, SIZE)


def training_cameras() -> Cameras:
    """48 cameras, from below to above."""
    heights = torch.linspace(-0.6, 0.98, VIEWS)
    return cameras_of(golden_azimuths(VIEWS, 0.0).float(), torch.rad2deg(torch.arcsin(heights)))


def test_cameras() -> Cameras:
    """16 cameras that are not among those."""
    return cameras_of(torch.arange(16) * 22.5 + 5, torch.tensor([-10.0, 10.0, 30.0, 50.0]).repeat(4))


def beginning(mesh: Mesh, count: int, rng: np.random.Generator) -> tuple[dict[str, Tensor], Tensor]:
    """Parameters of Gaussians on the surface that can be seen, and which of them a word repaints."""
    scene = placed([mesh], [False])
    seen = seen_faces(scene)
    points, of = scatter(corners := scene.vertices[scene.faces[seen]], count, rng)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2
    faces, size = seen[of], math.log(0.5 * math.sqrt(area / count))
    colors = torch.from_numpy(0.75 * mesh.colors[faces])  # the mean light is about this
    parameters = {
        "means": torch.from_numpy(points).float(),
        "quats": torch.from_numpy(rng.normal(size=(count, 4))).float(),
        "scales": torch.full((count, 3), size),
        "opacities": torch.full((count,), 2.0),
        "sh": ((colors - 0.5) / SH_C0)[:, None],
    }
    return parameters, torch.from_numpy(mesh.shades[faces] > 0)


def fit(mesh: Mesh, settings: Settings, seed: int) -> Reference:
    """The reference splat of a mesh."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    cameras = training_cameras()
    truth = draw_meshes(placed([mesh], [False]), cameras, 3)
    body, alpha = paint(truth, torch.zeros(1, 3), torch.zeros(VIEWS, 3))
    parameters, main = beginning(mesh, settings.gaussians, rng)
    tensors = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    adam = torch.optim.Adam([{"params": [tensors[name]], "lr": rate} for name, rate in RATES.items()])
    for step in range(settings.steps):
        fall = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        for group, rate in zip(adam.param_groups, RATES.values(), strict=True):
            group["lr"] = rate * fall
        which, backgrounds = torch.from_numpy(rng.choice(VIEWS, BATCH, replace=False)), torch.rand(BATCH, 3)
        images = render(Gaussians(*tensors.values()), cameras.pick(which), backgrounds).images
        error = images - body[which] - (1 - alpha[which]) * backgrounds[:, None, None]
        adam.zero_grad()
        (error.abs().mean() + 2 * error.square().mean()).backward()
        adam.step()
    gaussians = Gaussians(*(value.detach() for value in tensors.values()))
    flat = torch.from_numpy(mesh.colors[mesh.shades > 0]).float() @ LUMINANCE if main.any() else torch.ones(1)
    return Reference(gaussians, main, max(float(flat.mean()), 1 / 255), mesh.outline, mesh.support)


def judge(one: Reference, mesh: Mesh) -> dict[str, float]:
    """PSNR over white and IoU at the test cameras, and the PSNR where a word repaints the model in blue."""
    cameras, figures = test_cameras(), {}
    for name, painted, color in (("psnr", False, (0.0, 0.0, 0.0)), ("psnr_blue", True, (0.15, 0.25, 0.9))):
        if painted and not one.main.any():
            continue
        true = draw_meshes(placed([mesh], [painted]), cameras, 3)
        images = [
            paint(seen, torch.tensor([color]), torch.ones(16, 3)) for seen in (draw([one], [painted], cameras), true)
        ]
        figures[name] = float(-10 * (images[0][0] - images[1][0]).square().mean().log10())
        if not painted:
            ours, theirs = (alpha[..., 0] > 0.5 for _, alpha in images)
            figures["iou"] = float((ours & theirs).sum() / (ours | theirs).sum())
    return figures


def write(parts: Sequence[dict[str, NDArray[Any]]], names: Sequence[str], path: Path) -> None:
    """Write all reference splats as one file."""
    rows = ("means", "quats", "scales", "opacities", "colors", "main")
    joined = {key: np.concatenate([part[key] for part in parts]) for key in rows}
    joined |= {key: np.stack([part[key] for part in parts]) for key in ("outline", "support")}
    joined["level"] = np.concatenate([part["level"] for part in parts])
    starts = np.cumsum([0, *(len(part["means"]) for part in parts)]).astype(np.int32)
    with atomic_path(path) as draft, draft.open("wb") as file:
        np.savez_compressed(file, **{"names": np.array(names), "starts": starts, **joined})


def main(settings: Settings, place: Path) -> None:
    """Fit the models, and write the file where all are done."""
    torch.set_num_threads(1)
    names, figures, parts = settings.models or tuple(models()), {}, []
    if unknown := [name for name in names if name not in models()]:
        raise SystemExit(f"there is no model '{unknown[0]}'.{did_you_mean(unknown[0], list(models()))}")
    for number, name in enumerate(models()):
        if name not in names:
            continue
        kept = settings.work / f"{settings.gaussians}-{settings.steps}" / f"{name}.npz"
        mesh = mesh_of(models()[name], place)
        if not kept.exists():
            arrays: dict[str, Any] = split(fit(mesh, settings, number))
            with atomic_path(kept) as draft, draft.open("wb") as file:
                np.savez(file, **arrays)
        with np.load(kept) as stored:
            parts.append(dict(stored))
        figures[name] = {key: round(value, 4) for key, value in judge(merge(parts[-1]), mesh).items()}
        print(f"{name:24} {json.dumps(figures[name])}", flush=True)
    means = {
        key: float(np.mean([f[key] for f in figures.values() if key in f])) for key in ("psnr", "iou", "psnr_blue")
    }
    print(f"{len(figures)} models: {json.dumps(means)}")
    if not settings.models:
        write(parts, names, FILE)
        write_json(FILE.with_name("figures.json"), {"means": means, "models": figures})


if __name__ == "__main__":
    if (here := folder()) is None:
        raise SystemExit(f"set {VARIABLE} to the folder of the meshes")
    main(settings_of(Settings, sys.argv[1:], "splats.py"), here)
