"""A clock that jumps by years between two looks at it, as one does that is set anew. Runs in forks."""

from __future__ import annotations

import itertools
import time

YEAR = 365.25 * 86400


def jumping() -> None:
    """From now on ``time.time`` is years behind, right, and years ahead by turns."""
    shifts, now, now_ns = itertools.cycle((-30 * YEAR, 0.0, 50 * YEAR)), time.time, time.time_ns
    time.time = lambda: now() + next(shifts)
    time.time_ns = lambda: now_ns() + int(next(shifts) * 1e9)
