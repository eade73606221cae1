"""A run that is stopped half-way and goes on in another process, and what must hold of it at the end.

    python tools/gpu/stop_and_resume.py FOLDER [--iterations 30] [--device auto] [--json figures.json]

SDS on the shapes prior, with a densification that grows on both sides of the stop. Ctrl-C is pressed in the middle, as
the run's own signal; `gsdistill generate --resume` in a process of its own makes the rest. Then there must be a record
of each step once, all of them finite; a number of Gaussians that changed before the stop and after it; and a splat of
finite numbers.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from gsdistill.core.errors import Stopped, UserError
from gsdistill.disk.read import read_json, read_records
from gsdistill.disk.write import write_json
from gsdistill.generate import run
from gsdistill.run.config import resolve
from gsdistill.scene.read import read_splat
from gsdistill.training.distiller import Distiller, Step
from gsdistill.training.listener import Listener

COUNT = 1000  # Gaussians at the start
SETTINGS = {
    "prompt": "a red torus", "prior": "shapes", "method": {"name": "sds"}, "init": {"name": "ball", "count": COUNT},
    "densify": {"enabled": True, "start": 0.1, "stop": 0.9, "every": 0.1, "grow_grad2d": 1.0, "budget": 50_000},
    "log_every": 1, "snapshots": 2, "overwrite": True,
}  # fmt: skip


def stopped(folder: Path, iterations: int, device: str, console: Console) -> None:
    """Begin the run, and stop it after half of its steps."""

    class Impatient(Listener):
        def on_step(self, step: Step, run: Distiller) -> None:
            if step.number == iterations // 2 - 1:  # the step after it is the last one
                signal.raise_signal(signal.SIGINT)

    config = resolve({**SETTINGS, "iterations": iterations, "device": device, "output": str(folder)})
    try:
        run(config, console, extras=False, listeners=[Impatient()])
    except Stopped:
        return
    raise SystemExit("the run was not stopped")


def faults(records: list[dict[str, Any]], iterations: int, sound: bool) -> list[str]:
    """What is wrong with a run's records and, unless it is ``sound``, its splat."""
    half, counts = iterations // 2, [record["gaussians"] for record in records]
    wrong = {
        f"steps {[record['step'] for record in records]}": [record["step"] for record in records]
        != [*range(1, iterations + 1)],
        "a step is not finite": not all(record["finite"] and record["loss"] is not None for record in records),
        "it did not grow before the stop": set(counts[:half]) <= {COUNT},
        "it did not grow after the stop": len(set(counts[half - 1 :])) < 2,
        "the splat is not finite": not sound,
    }
    return [line for line, holds in wrong.items() if holds]


def main() -> None:
    """Stop, go on, and look."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    try:
        stopped(options.folder, options.iterations, options.device, Console())
    except UserError as error:
        raise SystemExit(f"{Path(__file__).name}: {error}") from error
    command = [sys.executable, "-m", "gsdistill", "generate", "--config", str(options.folder), "--resume"]
    if status := subprocess.run(command, check=False).returncode:
        raise SystemExit(status)
    records, summary = read_records(options.folder / "metrics.jsonl"), read_json(options.folder / "summary.json")
    splat = read_splat(options.folder / "gaussians.ply")
    sound = all(bool(value.isfinite().all()) for value in splat.tensors().values())
    picked = ("device", "iterations", "milliseconds_per_step", "peak_memory_mb", "skipped_steps")
    counts = [COUNT, records[options.iterations // 2 - 1]["gaussians"], records[-1]["gaussians"]]
    found = {**{name: summary[name] for name in picked}, "gaussians_at_start_stop_and_end": counts}
    if options.json:
        write_json(options.json, found)
    print(json.dumps(found))
    if wrong := faults(records, options.iterations, sound):
        raise SystemExit(f"{Path(__file__).name}: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
