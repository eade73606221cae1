"""What `gsdistill bench` is told beside the settings of a run. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from gsdistill.config import bounded
from gsdistill.runflags import RunFlags

__all__ = ["MOST_STEPS", "BenchFlags"]

MOST_STEPS = 1000  # that are timed, of which the clock remembers each lap


@dataclass(frozen=True)
class BenchFlags(RunFlags):
    """Time the steps of a run by phase, with any setting of `gsdistill generate`, and compare two measurements.

    The timed steps are spread evenly over the run, so that what changes during it is met as in a whole one.
    """

    COMMON: ClassVar[tuple[str, ...]] = (
        *("steps", "warmup", "method", "prior", "random_weights", "views", "resolution", "init", "config", "device"),
        *("threads", "json", "compare"),
    )

    # Take the real network, untrained and without a download: sd21-base, sdxl, if or mvdream.
    random_weights: str | None = None
    steps: int = bounded(30, low=1, high=MOST_STEPS)  # Time so many steps.
    warmup: int = bounded(5, low=1, high=MOST_STEPS)  # Make so many before them, in which kernels are compiled.
    json: Path | None = None  # Write the measurement to this file too.
    compare: tuple[Path, Path] | None = None  # Show the ratios of two such files, B over A, and measure nothing.
