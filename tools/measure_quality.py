"""Quality on the shapes world: the README's table and sheets, from 20 prompts that no setting was tuned on.

    python tools/measure_quality.py --method cds --output outputs/quality

Runs `generate` with its defaults for every prompt (seed 0; finished runs are kept), evaluates each against the truth,
and writes figures.json, a table, and a sheet with six sides of each result.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table

from gsdistill.config import load_yaml
from gsdistill.evaluation.truth import evaluate_run
from gsdistill.export.pictures import shots
from gsdistill.files import slug, write_json
from gsdistill.generate import resolve, run
from gsdistill.scene.cameras import orbit
from gsdistill.scene.ply import read_ply

TEST = (
    "a green sphere", "an orange cube", "a purple torus", "a cyan cone", "a black cylinder", "a white capsule",
    "a brown octahedron", "a red pyramid", "a yellow star", "a blue cross", "a pink table", "a green chair",
    "an orange mug", "a purple ring", "a cyan chair", "a yellow table", "a white star", "a brown cube", "a pink mug",
    "a blue octahedron",
)  # fmt: skip
TUNING = (
    "a red torus", "a blue chair", "a white cube", "a brown table", "a green star", "a yellow mug", "a pink ring",
    "an orange cross",
)  # fmt: skip
UNSEEN = (
    "a purple cube", "a cyan torus", "a brown chair", "a pink star", "an orange pyramid", "a red mug", "a green cone",
)  # fmt: skip
STACKS = ("a red cube on a blue sphere", "a yellow cone on a green cylinder", "a pink torus on a brown table")
SETS = {"test": TEST, "tuning": TUNING, "unseen": UNSEEN, "stacks": STACKS}


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    # method, with its recipe for the shapes prior
    method: str = "cds"
    # test, tuning, unseen (shape-colour pairs the prior never saw) or stacks
    prompts: str = "test"
    # folder of the runs and the results
    output: Path = Path("outputs/quality")
    # settings over the recipe, as JSON
    override: str = "{}"
    seed: int = 0


def measure(prompt: str, settings: Settings, folder: Path) -> dict[str, Any]:
    """Generate, unless that is done, and evaluate."""
    target = folder / slug(prompt)
    given = {"prompt": prompt, "method": settings.method, "seed": settings.seed, "output": str(target), "device": "cpu"}
    config = resolve({**given, "overwrite": True, **json.loads(settings.override)})
    kept = target / "summary.json"
    if not kept.exists() or resolve(load_yaml(target / "config.yaml")) != replace(config, overwrite=False):
        run(config, Console(quiet=True))
    seconds = json.loads(kept.read_text())["seconds"]
    return {"prompt": prompt, "seconds": round(seconds, 1), **evaluate_run(target)}


def sheet(prompts: tuple[str, ...], folder: Path, size: int = 96) -> None:
    """Six sides of each result, two prompts a row."""
    rows = []
    for prompt in prompts:
        scene = read_ply(folder / slug(prompt) / "gaussians.ply")
        views = list(shots(scene, orbit(6, size, elevation=20.0), (1.0, 1.0, 1.0)))
        rows.append(np.concatenate(views, axis=1))
    rows += [np.full_like(rows[0], 255)] * (len(rows) % 2)
    half = len(rows) // 2
    pairs = [np.concatenate([left, right], axis=1) for left, right in zip(rows[:half], rows[half:], strict=True)]
    Image.fromarray(np.concatenate(pairs)).save(folder / "sheet.png")


def main(settings: Settings) -> None:
    """Measure all prompts of a set."""
    folder = settings.output / f"{settings.method}-{settings.prompts}-seed{settings.seed}"
    prompts = SETS[settings.prompts]
    rows = []
    for prompt in prompts:
        rows.append(measure(prompt, settings, folder))
        row = rows[-1]
        print(f"{prompt:<36} iou {row['iou']:.3f}  {row['name']:<24} {row['seconds']} s", flush=True)
    means = {
        "method": settings.method,
        "prompts": len(rows),
        "iou": float(np.mean([row["iou"] for row in rows])),
        "lowest_iou": min(row["iou"] for row in rows),
        "colour_right": float(np.mean([row["colour_right"] for row in rows])),
        "name_right": float(np.mean([row["name_right"] for row in rows])),
        "chamfer": float(np.mean([row["chamfer"] for row in rows])),
        "floaters": float(np.mean([row["floaters"] for row in rows])),
        "colour_error": float(np.mean([row["colour_error"] for row in rows])),
    }
    write_json(folder / "figures.json", {"mean": means, "torch": torch.__version__, "rows": rows})
    sheet(prompts, folder)
    table = Table("figure", "value")
    for name, value in means.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Settings))
