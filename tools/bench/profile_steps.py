"""What the device does in a few steps of a run: every kernel, how often and for how long, by torch.profiler.

    python tools/bench/profile_steps.py TABLE.txt [--json FIGURES.json] [the flags of `gsdistill bench`]

``--steps`` of them, few, are profiled after ``--warmup`` others and as many that are timed without. The table has all
kernels, the longest first; the figures are a step's milliseconds by the clock on the wall and of its kernels, their
number, the copies among them, the waits that the program asked for, and the ten longest. Where the kernels take much
less than the wall, launching them is what costs: fewer of them, ``model.compile`` or a graph help. Many ``nchwToNhwc``
or ``copy`` kernels are a layout that does not hold.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peer_loop import timed
from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from gsdistill.cli.commands.bench import loaded
from gsdistill.core.errors import UserError
from gsdistill.disk.write import write_json, write_text
from gsdistill.generate import prepared

WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy")  # cudaDeviceSynchronize is the profiler's


def profiled(argv: Sequence[str], console: Console) -> tuple[dict[str, Any], str]:
    """Figures of a step, and the table of all steps that were profiled."""
    config, prior, device, flags = loaded(argv, console)
    _, run = prepared(config, prior, device)
    timed(run.step, flags.warmup, device)
    wall = timed(run.step, flags.steps, device)
    kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (device.type == "cuda")]
    with profile(activities=kinds) as found:
        timed(run.step, flags.steps, device)
    rows, on_device = found.key_averages(), device.type == "cuda"
    taken = "self_device_time_total" if on_device else "self_cpu_time_total"
    kernels = [
        row for row in rows
        if (row.device_type == torch.autograd.DeviceType.CUDA) == on_device and not row.is_user_annotation
    ]  # fmt: skip
    if not kernels:
        raise UserError(f"the profiler saw nothing of {device}; what it needs of the driver may be forbidden here")
    kernels.sort(key=lambda row: -getattr(row, taken))
    waits = sum(row.count for row in rows if row.key in WAITS)
    count = flags.steps
    figures = {
        "milliseconds_on_the_wall": wall,
        "milliseconds_of_kernels": sum(getattr(row, taken) for row in kernels) / 1e3 / count,
        "kernels": sum(row.count for row in kernels) / count,
        "copies": sum(row.count for row in kernels if "memcpy" in row.key.lower() or "copy" in row.key) / count,
        "waits": waits / count,
        "longest_ms": {row.key[:100]: round(getattr(row, taken) / 1e3 / count, 4) for row in kernels[:10]},
    }
    return figures, found.key_averages().table(sort_by=taken, row_limit=-1, max_name_column_width=100)


def main() -> None:
    """Profile and write."""
    table, *argv = sys.argv[1:] or ["--help"]
    if table.startswith("-"):
        raise SystemExit(__doc__)
    target = Path(argv.pop(argv.index("--json") + 1)) if "--json" in argv[:-1] else None
    try:
        figures, text = profiled([word for word in argv if word != "--json"], Console())
        write_text(table, text)
        if target:
            write_json(target, figures)
    except UserError as error:
        raise SystemExit(f"{Path(__file__).name}: {error}") from error
    print(*(f"{name}: {value}" for name, value in figures.items()), sep="\n")


if __name__ == "__main__":
    main()
