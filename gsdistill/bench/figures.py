"""A measurement as plain figures, as its JSON file holds them; ``format`` and ``version`` identify such a file."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from gsdistill import __version__
from gsdistill.bench.flops import Ceiling, matmul_ceiling
from gsdistill.bench.report import compare
from gsdistill.bench.timing import Timing, time_steps
from gsdistill.core.device import describe, processor
from gsdistill.core.errors import BadFile
from gsdistill.core.failing import failing_as
from gsdistill.disk.read import brief, read_json
from gsdistill.prior.base import Prior
from gsdistill.prior.families.base import Pretrained
from gsdistill.run.config import RunConfig
from gsdistill.settings.config import name_of, to_dict

__all__ = ["FORMAT", "VERSION", "environment", "figures", "measure", "read_figures"]

FORMAT, VERSION = "gsdistill bench", 1
PACKAGES = ("torch", "numba", "diffusers", "gsplat")

# Settings about the files of a run; a measurement writes no such files.
FILES = (
    *("log_every", "preview_every", "snapshots", "checkpoint_every", "logs"),
    *("output", "resume", "accept_changes", "overwrite"),
)


def measure(
    config: RunConfig, prior: Prior, device: torch.device, steps: int, warmup: int, random_weights: bool = False
) -> dict[str, Any]:
    """Time ``steps`` steps spread over a run, after ``warmup`` others; returns :func:`figures` and the environment.

    ``random_weights`` is only noted in the figures.

    Raises:
        UserError: of any kind that the run itself would raise.
    """
    timing = time_steps(config, prior, device, steps, warmup)
    dtype = prior.products if isinstance(prior, Pretrained) else torch.float32
    ceiling = matmul_ceiling(device, dtype)
    own = {"random_weights": random_weights, "steps": steps, "warmup": warmup}
    return {**figures(timing, ceiling, config, own), "environment": environment(device, ceiling.dtype)}


def figures(timing: Timing, ceiling: Ceiling, config: RunConfig, own: Mapping[str, Any]) -> dict[str, Any]:
    """All that was measured, in milliseconds, bytes and operations; ``own`` are settings of the measurement itself.

    The network's operations per evaluation come from one counted step, and are multiplied by the evaluations of the
    timed steps, because some methods call the network more often at some times of a run than at others.
    """
    steps, flops, views = len(timing.steps), timing.flops, timing.views
    settings = {name: value for name, value in to_dict(config).items() if name not in FILES}
    network = flops.network / flops.evaluations * timing.evaluations  # of all timed steps
    rate = network / sum(timing.phases["network"])
    return {
        "format": FORMAT,
        "version": VERSION,
        "settings": {**settings, **own},
        "run": {
            "method": name_of(config.method),
            "prior": config.prior,
            "gaussians": timing.gaussians,
            "views": views.count,
            "resolution": views.resolution,
            "skipped_steps": timing.skipped,
        },
        "phases": _phases(timing),
        "step": _spread(timing.steps),
        "steps_per_second": steps / timing.seconds,
        "evaluations_per_step": timing.evaluations / steps,
        "evaluations_per_second": timing.evaluations / timing.seconds,
        "peak_bytes": timing.peak_bytes,
        "flops": {
            "step": network / steps + flops.encode + flops.encode_backward,
            "network": network / steps,
            "encode": flops.encode,
            "encode backward": flops.encode_backward,
        },
        "network_flops_per_second": rate,
        "matmul": {"flops_per_second": ceiling.flops_per_second, "side": ceiling.side, "dtype": ceiling.dtype},
        "network_share_of_matmul": rate / ceiling.flops_per_second,
    }


def environment(device: torch.device, precision: str) -> dict[str, Any]:
    """The device, processor, threads, precision and versions of packages of a measurement made now."""
    return {
        "device": describe(device),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "float32_matmul": torch.get_float32_matmul_precision(),
        "python": platform.python_version(),
        "versions": {"gsdistill": __version__, **{name: version(name) for name in PACKAGES}},
    }


def read_figures(path: Path) -> dict[str, Any]:
    """Read the JSON file of an earlier measurement.

    Raises:
        BadFile: the file cannot be read, is damaged, or is not a measurement of this version.
    """
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise BadFile(f"{path} is not a measurement of `gsdistill bench --json`")
    if content.get("version") != VERSION:
        raise BadFile(f"{path} is of version {brief(content.get('version'))} of the format, which must be {VERSION}")
    with failing_as(BadFile, f"{path} is not whole"):
        compare(Console(file=StringIO()), content, content)  # fails if a figure that a comparison needs is missing
    return content


def _phases(timing: Timing) -> dict[str, dict[str, float]]:
    """The spread of each phase and its share of the time of all steps; ``rest`` is the time outside of phases."""
    whole = sum(timing.steps)
    phases = {name: times for name, times in timing.phases.items() if len(times) == len(timing.steps)}
    rest = [step - sum(parts) for step, *parts in zip(timing.steps, *phases.values(), strict=True)]
    return {name: {**_spread(times), "share": sum(times) / whole} for name, times in {**phases, "rest": rest}.items()}


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    """The median, both quartiles and the mean, in milliseconds."""
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else 3 * [seconds[0]]
    spread = {"median_ms": middle, "low_ms": low, "high_ms": high, "mean_ms": statistics.fmean(seconds)}
    return {name: round(1e3 * value, 6) for name, value in spread.items()}
