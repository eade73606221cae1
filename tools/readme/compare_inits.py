"""The table of starts in gsdistill/scene/README.md: one method from different initialisers, in ever fewer steps.

    python tools/readme/compare_inits.py --output outputs/inits

Every run is `gsdistill generate` with the method's recipe for the shapes prior, and is measured against the true
object; finished runs are kept, so the same command goes on where it stopped. Prints a Markdown table of silhouette
IoU, of the splat as it starts and after shares of the recipe's steps: mean over the prompts with its 95 % interval. Two
of it at once with --part 0 2 and --part 1 2 and one thread each share the runs of two cores, and print no table.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from gsdistill.cli.flags import settings_of
from gsdistill.disk.places import slug
from gsdistill.disk.write import write_json
from gsdistill.evaluation.statistics import bootstrap
from gsdistill.evaluation.truth import evaluate
from gsdistill.generate import run
from gsdistill.run.config import RunConfig, resolve
from gsdistill.run.prompts import read_prompts
from gsdistill.scene.read import read_splat

PROMPTS = read_prompts(Path(__file__).with_name("prompts.txt"))


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    # folder of the runs and of the figures
    output: Path
    # names of `gsdistill list inits`
    inits: tuple[str, ...] = ("ball", "sphere", "point-e")
    # shares of the recipe's steps
    shares: tuple[float, ...] = (0.25, 0.5, 1.0)
    # name of `gsdistill list methods`
    method: str = "sds"
    # objects of the shapes world
    prompts: tuple[str, ...] = PROMPTS
    # of every run
    seed: int = 0
    # only do the runs i with i mod second = first
    part: tuple[int, int] | None = None


def config_of(settings: Settings, init: str, prompt: str) -> RunConfig:
    """The run with all steps."""
    return resolve(
        {"prompt": prompt, "method": settings.method, "prior": "shapes", "init": init, "seed": settings.seed}
    )


def measured(settings: Settings, init: str, prompt: str, share: float) -> float:
    """The IoU of one run, which is done first unless its figure is there; share 0 is the start itself."""
    config = config_of(settings, init, prompt)
    folder = settings.output / slug(prompt) / f"{settings.method}-{init}-{round(100 * share)}"
    figures = folder / "figures.json"
    if not figures.exists():
        if share == 0:
            initial = config.init.create(prompt, torch.Generator().manual_seed(config.seed))
            write_json(figures, evaluate(initial, prompt))
        else:
            count = round(share * config.iterations)
            config = replace(config, iterations=count, output=folder, overwrite=True, snapshots=0)
            run(config, Console(quiet=True), extras=False)
            write_json(figures, evaluate(read_splat(folder), prompt))
    return json.loads(figures.read_text(encoding="utf-8"))["iou"]


def main(settings: Settings) -> None:
    """Do the runs, then print the table."""
    shares = (0.0, *settings.shares)
    jobs = [(init, prompt, share) for prompt in settings.prompts for init in settings.inits for share in shares]
    first, every = settings.part or (0, 1)
    for init, prompt, share in jobs[first::every]:
        print(f"{prompt}, {init}, {share:.0%}: IoU {measured(settings, init, prompt, share):.3f}", flush=True)
    if settings.part:
        return
    print(
        "| start | " + " | ".join(f"{share:.0%} of the steps" if share else "as it starts" for share in shares) + " |"
    )
    print("|---" * (len(shares) + 1) + "|")
    for init in settings.inits:
        cells = []
        for share in shares:
            values = [[measured(settings, init, prompt, share)] for prompt in settings.prompts]
            if interval := bootstrap(np.array(values)):
                cells.append(f"{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f})")
        print(f"| `{init}` | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(settings_of(Settings, sys.argv[1:], "compare_inits.py"))
