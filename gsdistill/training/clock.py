"""Seconds by phase of a step, measured without holding the step up.

A CPU is asked for the time. An accelerator runs behind the program: there each boundary is an event in its queue, and
the times between events are read once they have passed. A phase then holds what the device did between its two
events, waiting for the program included.
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

KEPT = 1024  # laps remembered of each phase


class Clock:
    """``with clock("render"): ...`` is one lap of the phase "render"; blocks do not nest.

    ``seconds`` holds the total by phase, ``laps`` the seconds of the last 1,024 laps by phase, oldest first.
    """

    def __init__(self, device: torch.device, seconds: dict[str, float] | None = None) -> None:
        self._device = device
        self.seconds: dict[str, float] = {} if seconds is None else seconds
        self.laps: dict[str, deque[float]] = {}
        self._running: tuple[str, Any] | None = None  # the phase, and when it began
        self._queued: deque[tuple[str, Any, Any]] = deque()  # a phase and the events at its ends

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time one block; a block that raises is not counted."""
        self._running = (phase, self._now())
        try:
            yield
            self._turn(None)
        finally:
            self._running = None
        self.settle()

    def split(self, tensor: Tensor, phase: str) -> None:
        """Give ``phase`` what is left of the running block once the gradient of ``tensor`` arrives in a backward."""
        if tensor.requires_grad:
            tensor.register_hook(lambda gradient: self._turn(phase))

    def settle(self, wait: bool = False) -> None:
        """Read the laps that the device has finished, or with ``wait`` all of them; a CPU has none to read."""
        while self._queued and (wait or self._queued[0][2].query()):
            phase, begin, end = self._queued.popleft()
            if wait:
                end.synchronize()
            self._count(phase, begin.elapsed_time(end) / 1e3)

    def reset(self) -> None:
        """Forget the laps, those in the queue included, but no total that has been counted."""
        self.laps.clear()
        self._queued.clear()

    def _turn(self, following: str | None) -> None:
        """End the running lap, and begin one of ``following``."""
        if self._running is None:
            return
        (phase, begin), end = self._running, self._now()
        if isinstance(end, float):
            self._count(phase, end - begin)
        else:
            self._queued.append((phase, begin, end))
        self._running = None if following is None else (following, end)

    def _now(self) -> Any:
        """Seconds, or an event in the device's queue."""
        if self._device.type == "cpu":
            return time.perf_counter()
        event = torch.Event(device=self._device, enable_timing=True)
        event.record()
        return event

    def _count(self, phase: str, seconds: float) -> None:
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        self.laps.setdefault(phase, deque(maxlen=KEPT)).append(seconds)
