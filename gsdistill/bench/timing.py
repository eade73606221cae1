"""The seconds of a run's steps, on the real path: :class:`gsdistill.training.distiller.Distiller`.

Step k of n is made where a whole run would be after k / n of its steps: schedules of noise levels and rates, and
methods whose network calls depend on them, are met as in a whole run. The scene is that of the first steps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from gsdistill.bench.flops import Flops, count_step
from gsdistill.core.device import forget_peak, peak_memory
from gsdistill.generate import prepared
from gsdistill.prior.base import Prior
from gsdistill.run.config import RunConfig
from gsdistill.training.clock import Clock
from gsdistill.training.distiller import Distiller, Step
from gsdistill.training.views import ViewSettings

__all__ = ["Timing", "measure"]


@dataclass(frozen=True)
class Timing:
    """What was measured."""

    views: ViewSettings
    phases: dict[str, list[float]]  # seconds of each timed step, by phase
    steps: list[float]  # seconds of each timed step, as the device had it
    seconds: float  # of all timed steps by the clock on the wall, until the device had finished
    evaluations: int  # samples through the network in the timed steps
    skipped: int  # of all steps, without an update since the gradient was not finite
    gaussians: int  # after the last step
    peak_bytes: int
    flops: Flops


def measure(config: RunConfig, prior: Prior, device: torch.device, count: int, warmup: int) -> Timing:
    """Make ``warmup`` steps, time ``count``, and count the operations of one more.

    Raises:
        UserError: of any kind that the run itself would raise.
    """
    _, run = prepared(config, prior, device)
    forget_peak(device)
    for done in _places(run, warmup):
        _step(run, done)
    run.clock.settle(wait=True)
    run.clock.reset()
    laps, evaluations = Clock(device), 0
    began = time.perf_counter()
    for done in _places(run, count):
        with laps("step"):
            record = _step(run, done)
        evaluations += record.evaluations
    laps.settle(wait=True)
    seconds = time.perf_counter() - began
    run.clock.settle(wait=True)
    phases = {name: list(times) for name, times in run.clock.laps.items()}
    peak = peak_memory(device)
    flops = count_step(prior, lambda: _step(run, run.iterations // 2))
    return Timing(
        run.views, phases, list(laps.laps["step"]), seconds, evaluations, run.skipped, len(run.representation), peak,
        flops,
    )  # fmt: skip


def _places(run: Distiller, count: int) -> Iterator[int]:
    """The finished steps of a whole run at each of ``count`` steps spread evenly over it."""
    return (k * run.iterations // count for k in range(count))


def _step(run: Distiller, done: int) -> Step:
    """The step that a run makes after ``done`` others."""
    run.seek(done)
    return run.step()
