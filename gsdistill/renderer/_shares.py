"""Run a kernel over a range of tasks in the calling thread and in helper threads, which take one share after another.

All shares are computed by the same code, so results do not depend on the number of threads. The caller works too, and
does not wait for helpers that have not begun: torch's own threads may still spin on some cores after their last
operation, and with one equal share per thread all would wait for the slowest.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

__all__ = ["run_in_shares"]

PER_THREAD = 4  # shares; many small ones, so that a late helper delays the end only a little
_pools: dict[int, ThreadPoolExecutor] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # a child has none of its parent's threads


def run_in_shares(threads: int, total: int, least: int, kernel: Callable[..., Any], *inputs: Any) -> None:
    """Call kernel(first, last, *inputs) for ranges that cover 0..total; several have at least ``least`` tasks each."""
    count = min(PER_THREAD * threads, total // least) if threads > 1 else 1
    if count < 2:
        kernel(0, total, *inputs)
        return
    shares = deque((total * i // count, total * (i + 1) // count) for i in range(count))

    def work() -> None:
        while True:
            try:
                first, last = shares.popleft()
            except IndexError:
                return
            kernel(first, last, *inputs)

    if threads not in _pools:
        _pools[threads] = ThreadPoolExecutor(threads - 1, thread_name_prefix="renderer")
    helpers = [_pools[threads].submit(work) for _ in range(min(threads, count) - 1)]
    try:
        work()
    finally:
        shares.clear()
        running = [helper for helper in helpers if not helper.cancel()]
        wait(running)  # also if one has failed: the others still write to the caller's arrays
    for helper in running:
        helper.result()
