"""Seconds spent in each phase of a step, measured without slowing the step down.

On a CPU this is the time of the wall clock. An accelerator works later than the program that sends it work: there, the
start and the end of a phase are events in the device's queue, and the time between them is read once the device has
passed them. It includes the time in which the device waited for the program.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["KEPT", "Clock"]

KEPT = 1024  # the last laps of each phase that are remembered


class Clock:
    """``with clock("render"): ...`` times one lap of the phase "render"; blocks must not nest.

    ``seconds`` maps each phase to its total, and ``laps`` to the seconds of its last 1,024 laps, the oldest first.
    """

    def __init__(self, device: torch.device, seconds: dict[str, float] | None = None) -> None:
        self._device = device
        self.seconds: dict[str, float] = {} if seconds is None else seconds
        self.laps: dict[str, deque[float]] = {}
        self._running: tuple[str, Any] | None = None  # the phase, and when it began
        self._queued: deque[tuple[str, Any, Any]] = deque()  # a phase, and the events at its start and end

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time the block as one lap; a lap in which an error is raised is not counted."""
        self._running = (phase, self._now())
        try:
            yield
            self._turn(None)
        finally:
            self._running = None
        self.settle()

    def split(self, tensor: Tensor, phase: str) -> None:
        """In the backward, end the running phase when the gradient of ``tensor`` is computed, and start ``phase``."""
        if tensor.requires_grad:
            tensor.register_hook(lambda gradient: self._turn(phase))

    def settle(self, wait: bool = False) -> None:
        """Count the laps that the device has finished; with ``wait``, wait for all of them. Does nothing on a CPU."""
        while self._queued and (wait or self._queued[0][2].query()):
            phase, begin, end = self._queued.popleft()
            if wait:
                end.synchronize()
            self._count(phase, begin.elapsed_time(end) / 1e3)

    def reset(self) -> None:
        """Forget all laps, also those not yet counted; ``seconds`` stays as it is."""
        self.laps.clear()
        self._queued.clear()

    def _turn(self, following: str | None) -> None:
        """End the running lap, and begin one of the phase ``following`` if there is one."""
        if self._running is None:
            return
        (phase, begin), end = self._running, self._now()
        if isinstance(end, float):
            self._count(phase, end - begin)
        else:
            self._queued.append((phase, begin, end))
        self._running = None if following is None else (following, end)

    def _now(self) -> Any:
        """The time in seconds on a CPU, a new event in the device's queue elsewhere."""
        if self._device.type == "cpu":
            return time.perf_counter()
        event = torch.Event(device=self._device, enable_timing=True)
        event.record()
        return event

    def _count(self, phase: str, seconds: float) -> None:
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        self.laps.setdefault(phase, deque(maxlen=KEPT)).append(seconds)
