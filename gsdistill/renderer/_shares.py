"""Shares out a kernel's range of tasks to the calling thread and to helpers, whoever is free taking the next share.

Every share is computed by the same code wherever it runs, so results do not depend on the number of threads. The
caller works too, and does not wait for helpers that have not begun: on cores where torch's own threads still spin
after their last operation, equal shares would wait for the slowest.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

__all__ = ["in_shares"]

PER_THREAD = 4  # shares, so that a late helper leaves little to wait for
_pools: dict[int, ThreadPoolExecutor] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # a child has none of its parent's threads


def in_shares(threads: int, total: int, least: int, kernel: Callable[..., Any], *inputs: Any) -> None:
    """Call kernel(first, last, *inputs) for ranges that cover 0..total, none (but the last) smaller than ``least``."""
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
        begun = [helper for helper in helpers if not helper.cancel()]
        wait(begun)  # all of them, before one's failure is told: they write where the caller's arrays are
    for helper in begun:
        helper.result()
