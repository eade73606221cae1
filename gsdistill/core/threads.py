"""How many threads compute, and how they wait for each other. Torch is not imported before OpenMP has been told.

A child of a fork has none of its parent's threads: neither those that hold a lock nor those of OpenMP.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

from gsdistill.core.ranges import bounded

__all__ = ["Threads", "Turn", "sleep_soon"]

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# GCC's OpenMP tries a thousand times, which takes about ten microseconds; LLVM's goes to sleep at once.
SOON = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}


def sleep_soon() -> None:
    """Let OpenMP's threads sleep soon where they wait for each other, unless the environment says how they are to wait.

    By default they keep their processors busy for milliseconds at the end of every operation. Where another program
    wants a processor, the thread that all wait for is then the one that gets none. OpenMP reads this when torch is
    imported.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ.update(SOON)


class Turn:
    """A lock by which the threads of a process take turns in ``with`` blocks; in a child of a fork nobody holds it."""

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@dataclass(frozen=True, kw_only=True)
class Threads:
    """What every command takes that computes."""

    threads: int | None = bounded(None, low=1, high=1024)  # Compute on so many threads; none: as many as torch takes.

    def take(self) -> None:
        """Let torch, and the renderer with it, take so many."""
        if self.threads:
            import torch

            torch.set_num_threads(self.threads)
