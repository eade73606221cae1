"""What `gsdistill bench` is told beside the settings of a run. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gsdistill.config import bounded
from gsdistill.runflags import RunFlags

__all__ = ["MOST_STEPS", "BenchFlags"]

MOST_STEPS = 1000  # that are timed, of which the clock remembers each lap


@dataclass(frozen=True)
class BenchFlags(RunFlags):
    """Time the steps of a run by phase, with any setting of `gsdistill generate`, and compare two measurements.

    The timed steps are spread evenly over the run, so that what changes during it is met as in a whole one.
    """

    random_weights: str | None = None  # the real network, untrained, without a download: sd21-base, sdxl, if, mvdream
    steps: int = bounded(30, low=1, high=MOST_STEPS)  # that are timed
    warmup: int = bounded(5, low=1, high=MOST_STEPS)  # steps before them, in which kernels are compiled and chosen
    json: Path | None = None  # also write the measurement to this file
    compare: tuple[Path, Path] | None = None  # show the ratios of two such files, B over A, and measure nothing
