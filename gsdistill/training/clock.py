"""Seconds by phase of a step; on an accelerator each phase waits for the work it queued."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["Clock"]


class Clock:
    """``with clock("render"): ...`` adds the block's wall time to ``seconds["render"]``."""

    def __init__(self, device: torch.device, seconds: dict[str, float]) -> None:
        self._device, self.seconds = device, seconds

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time one block; on an accelerator the queued work is awaited, so that the phase gets what it started."""
        began = time.perf_counter()
        yield
        if self._device.type != "cpu":
            torch.accelerator.synchronize()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - began
