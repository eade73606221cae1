"""How many threads compute, and how they wait for each other. It must be settled before torch is imported.

A forked child has none of its parent's threads: neither those that hold a lock nor those of OpenMP.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

from gsdistill.core.ranges import bounded

__all__ = ["Threads", "Turn", "sleep_soon"]

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# GCC's OpenMP spins a thousand times, about ten microseconds; LLVM's sleeps at once.
SOON = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}


def sleep_soon() -> None:
    """Let OpenMP's threads go to sleep soon when they wait for each other, unless the environment already says how.

    By default they keep their processors busy for milliseconds after every operation. If another program needs a
    processor, the thread that all others wait for may then get none. OpenMP reads these variables when torch is
    imported.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ.update(SOON)


class Turn:
    """A reentrant lock for ``with`` blocks that is free in a forked child, whatever thread held it before the fork."""

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
    """The flags of every command that computes."""

    threads: int | None = bounded(None, low=1, high=1024)  # Compute on so many threads; none: as many as torch takes.

    def take(self) -> None:
        """Set the number of threads of torch, which the CPU renderer uses too."""
        if self.threads:
            import torch

            torch.set_num_threads(self.threads)
