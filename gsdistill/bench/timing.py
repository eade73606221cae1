"""Time the steps of a run as ``gsdistill generate`` makes them: :class:`gsdistill.training.distiller.Distiller`.

Step k of n is made as if the share k / n of a whole run were over. So noise levels, learning rates, and the number of
network calls of methods that change it are spread as in a whole run. Only the scene is that of a run's first steps.
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

__all__ = ["Timing", "time_steps"]


@dataclass(frozen=True)
class Timing:
    """The measurements of a number of timed steps."""

    views: ViewSettings
    phases: dict[str, list[float]]  # seconds of each timed step, by phase
    steps: list[float]  # seconds of each timed step, on the device's clock
    seconds: float  # wall-clock time of all timed steps, until the device had finished
    evaluations: int  # samples that went through the network in the timed steps
    skipped: int  # steps, warm-up included, that changed nothing, because their gradient was not finite
    gaussians: int  # after the last step
    peak_bytes: int  # see core.device.peak_memory
    flops: Flops  # of one more step


def time_steps(config: RunConfig, prior: Prior, device: torch.device, count: int, warmup: int) -> Timing:
    """Make ``warmup`` steps, time ``count`` more, and count the operations of another one.

    Raises:
        UserError: of any kind that the run itself would raise.
    """
    _, run = prepared(config, prior, device)
    forget_peak(device)
    for done in _positions(run, warmup):
        _step(run, done)
    run.clock.settle(wait=True)
    run.clock.reset()
    laps, evaluations = Clock(device), 0
    began = time.perf_counter()
    for done in _positions(run, count):
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


def _positions(run: Distiller, count: int) -> Iterator[int]:
    """``count`` numbers of finished steps, spread evenly over a whole run."""
    return (k * run.iterations // count for k in range(count))


def _step(run: Distiller, done: int) -> Step:
    """Make the step that a run makes after ``done`` others."""
    run.seek(done)
    return run.step()
