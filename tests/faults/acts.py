"""What a fork does before its work: a clock that jumps, a signal that comes early, a terminal of its own."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import Any

from gsdistill import generate

YEAR = 365.25 * 86400


def jumping() -> None:
    """From now on ``time.time`` is years behind, right, and years ahead by turns, as one that is set anew."""
    shifts, now, now_ns = itertools.cycle((-30 * YEAR, 0.0, 50 * YEAR)), time.time, time.time_ns
    time.time = lambda: now() + next(shifts)
    time.time_ns = lambda: now_ns() + int(next(shifts) * 1e9)


def signalled_at_the_prior(number: int) -> None:
    """Once the prior is about to be loaded, this process signals itself."""
    load_prior = generate.load_prior

    def load(*given: Any) -> Any:
        os.kill(os.getpid(), number)
        return load_prior(*given)

    generate.load_prior = load


def on_terminal(path: Path) -> None:
    """From now on this process leads a session, whose terminal has that name, and all that it says goes there."""
    os.setsid()
    terminal = os.open(path, os.O_RDWR)  # the first one that such a process opens becomes its own
    for stream in (0, 1, 2):
        os.dup2(terminal, stream)
    os.environ["TERM"] = "xterm"
