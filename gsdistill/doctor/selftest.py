"""``gsdistill doctor --run``: makes a short run in a temporary folder, and compares its figures with expected ones.

The run is ``generate --prompt "a red torus" --method sds --prior shapes --quality draft --seed 0``. With 1, 2 and 4
threads, in float32 and in bfloat16, its IoU was 0.9469 to 0.9470 and its colour error 0.0341 to 0.0342, and with three
other seeds 0.944 to 0.952 and 0.033 to 0.035. EXPECTED allows 0.01 around the former. It was not tried on a GPU.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from gsdistill.core import device
from gsdistill.core.errors import UserError, first_line
from gsdistill.disk.read import read_json
from gsdistill.doctor.machine import Finding
from gsdistill.generate import prepared, run
from gsdistill.prior.loading import load_prior
from gsdistill.run.config import RunConfig, resolve
from gsdistill.run.measure import evaluate_run
from gsdistill.run.read import RECORDS, SPLAT, SUMMARY

__all__ = ["EXPECTED", "selftest"]

RUN = {"prompt": "a red torus", "method": "sds", "prior": "shapes", "quality": "draft", "seed": 0}
STAGES = ("prior", "renderer", "steps", "shape", "files")
EXPECTED = {"iou": (0.937, 0.957), "colour_error": (0.024, 0.044)}
FILES = (SPLAT, "views.png", "turntable.mp4", "report.html", RECORDS)


def selftest() -> Iterator[Finding]:
    """Yield each stage with its result and its seconds; if one fails, what went wrong, and no further stage."""
    with tempfile.TemporaryDirectory(prefix="gsdistill-") as place:
        stages = _stages(resolve({**RUN, "output": str(Path(place) / "run")}))
        for name in STAGES:
            began = time.perf_counter()
            try:
                finding = next(stages)
            except Exception as error:  # any failure is a result of the self-test
                yield Finding("self-test", name, None, f"{type(error).__name__}: {first_line(error)}")
                return
            yield Finding("self-test", name, f"{finding}, {time.perf_counter() - began:.1f} s")


def _stages(config: RunConfig) -> Iterator[str]:
    """Yield the result of each stage. Raises UserError if a result is not as expected."""
    target = device.choose(config.device)
    device.prepare(target)
    prior = load_prior(config.prior, target, config.model)
    yield f"{prior.name} loads"
    prepared(config, prior, target)[1].step()
    yield f"draws on {target}, compiled"
    run(config, Console(quiet=True), prior)
    summary = read_json(config.folder / SUMMARY)
    if summary["skipped_steps"]:
        raise UserError(f"{summary['skipped_steps']} steps had a gradient that is not finite")
    yield f"{config.iterations} steps, {summary['iterations_per_second']:.1f} it/s"
    figures = evaluate_run(config.folder)
    for name, (low, high) in EXPECTED.items():
        if not low <= float(figures[name]) <= high:
            raise UserError(f"{name} = {figures[name]:.3f}, where {low:g} to {high:g} is expected")
    yield ", ".join(f"{name} {figures[name]:.3f} ({low:g} to {high:g})" for name, (low, high) in EXPECTED.items())
    if lost := [name for name in FILES if not (config.folder / name).is_file()]:
        raise UserError(f"the run wrote no {', '.join(lost)}")
    yield f"{len(FILES)} files are there"
