"""Seconds from the start of ``gsdistill generate`` until its splat has silhouette IoU 0.80 with the true object.

    python tools/bench/time_to_quality.py [--methods cds] [--checkouts before=DIR now=.] [--prompts ...] [--json FILE]

Every run is the whole command in a process of its own, with everything that a user waits for: imports, the loading of
the prior, the encoding of a prompt that is new, and the steps. The splat is copied after every step (microseconds) and
measured afterwards. One run of every checkout comes before the first that counts, so that compiled renderers are on
the disk; ``--checkouts`` measures several versions of gsdistill by turns, in one run of this tool. Flags that the tool
does not know go to every ``gsdistill generate``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsdistill.core.structs import Gaussians
from gsdistill.disk.write import write_json
from gsdistill.evaluation.views import Pictures, iou, photograph, truth
from gsdistill.run.prompts import read_prompts
from gsdistill.scene.densify.base import without_haze
from gsdistill.scene.densify.gradient import Gradient
from gsdistill.settings.yaml import load_yaml
from gsdistill.worlds.base import world_named
from gsdistill.worlds.shapes.captions import parse

PROMPTS = read_prompts(Path(__file__).parents[1] / "readme" / "prompts.txt")
GOAL = 0.80
KEYS = ("means", "quats", "scales", "opacities", "sh")
CHILD = """
import sys, time
import numpy as np
from gsdistill import generate
try:
    from gsdistill.cli.main import execute
except ImportError:  # an older checkout
    from gsdistill.cli import execute
began, kept = float(sys.argv[1]), []
def watch(inner, params):
    def watched(run, *rest):
        for record in inner(run, *rest):
            kept.append((time.time() - began, [v.detach().numpy().copy() for v in params(run).values()]))
            yield record
    return watched
try:
    from gsdistill.training.distiller import Distiller
    Distiller.__iter__ = watch(Distiller.__iter__, lambda run: run.representation.params)
except ImportError:  # an older checkout
    generate.steps = watch(generate.steps, lambda run: run.params)
code = execute(["generate", *sys.argv[3:]])
ended = time.time() - began
arrays = {f"{step}-{i}": value for step, (_, values) in enumerate(kept) for i, value in enumerate(values)}
np.savez(sys.argv[2], seconds=[when for when, _ in kept], ended=ended, **arrays)
sys.exit(code)
"""


def generate(checkout: Path, folder: Path, flags: Sequence[str]) -> tuple[np.ndarray, float, list[Gaussians]]:
    """Seconds at the end of every step and of the whole run, and the splat after every step."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-c", CHILD, str(time.time()), str(folder / "kept.npz")]
    subprocess.run(
        [*command, *flags, "--output", str(folder / "run")],
        env=environment,
        cwd=folder,
        check=True,
        capture_output=True,
    )
    config, kept = load_yaml(folder / "run" / "config.yaml"), np.load(folder / "kept.npz")
    settings = Gradient(final_opacity=config["densify"]["final_opacity"])
    splats = []
    for step in range(len(kept["seconds"])):
        values = [torch.from_numpy(kept[f"{step}-{i}"]) for i in range(len(KEYS))]
        splats.append(without_haze(Gaussians(*values), settings))
    return kept["seconds"], float(kept["ended"]), splats


def crossing(splats: list[Gaussians], true: Pictures) -> int | None:
    """The first step after which the IoU is GOAL."""
    return next((step for step, splat in enumerate(splats) if iou(photograph(splat), true) >= GOAL), None)


def measure(checkout: Path, method: str, prompt: str, more: Sequence[str]) -> dict[str, float | None]:
    """One run: when it started to step, crossed the goal and ended, and its final IoU."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--method", method, "--prompt", prompt, *more]
        seconds, ended, splats = generate(checkout, Path(folder), flags)
    true = truth(world_named("shapes"), parse(prompt))
    step = crossing(splats, true)
    return {
        "first_step": round(float(seconds[0]), 3),
        "goal": None if step is None else round(float(seconds[step]), 3),
        "goal_step": None if step is None else step + 1,
        "end": round(ended, 3),
        "iou": round(iou(photograph(splats[-1]), true), 4),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the prompts; a run that never gets there counts with its end."""
    goals = [row["end"] if row["goal"] is None else row["goal"] for row in rows]
    rest = {key: statistics.mean(row[key] for row in rows) for key in ("first_step", "end", "iou")}
    return {"goal": round(statistics.mean(goals), 2), **{key: round(value, 3) for key, value in rest.items()}}


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """The command line, and what of it is for generate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["cds", "sds"])
    parser.add_argument("--prompts", nargs="+", default=list(PROMPTS))
    parser.add_argument("--checkouts", nargs="+", default=["now=."], help="NAME=FOLDER of a version of gsdistill")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_known_args()


def main() -> None:
    """Measure by turns and print means."""
    options, more = arguments()
    checkouts = {name: Path(folder) for name, _, folder in (item.partition("=") for item in options.checkouts)}
    report: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__, "goal": GOAL}
    for method in options.methods:
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in checkouts}
        for folder in checkouts.values():
            measure(folder, method, options.prompts[0], more)
        for prompt in options.prompts:
            for name, folder in checkouts.items():
                rows[name].append({"prompt": prompt, **measure(folder, method, prompt, more)})
                print(method, name, rows[name][-1], flush=True)
        report[method] = {name: {"mean": summary(found), "runs": found} for name, found in rows.items()}
        for name, found in rows.items():
            print(f"{method} {name}: {summary(found)}", flush=True)
    if options.json:
        write_json(options.json, report)


if __name__ == "__main__":
    main()
