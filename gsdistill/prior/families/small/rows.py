"""Divides the rows of a batch among threads that compute on their own, in place of OpenMP's threads in each operation.

A small network is hundreds of small operations, and OpenMP's threads wait for each other after each; if another program
needs a processor too, they wait for the thread that lost its own. Threads with their own rows meet once in a call.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Shaped
from torch import Tensor

__all__ = ["by_rows"]

MOST = 4  # threads; more of them would wait for Python's lock
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # a forked child has none of its parent's threads


def by_rows(
    function: Callable[..., Shaped[Tensor, "B ..."]], *batch: Shaped[Tensor, "B ..."]
) -> Shaped[Tensor, "B ..."]:
    """The result of ``function`` for a batch, if no row of it depends on another.

    On a CPU and without gradients the rows are divided among threads, and torch's threads among these. The division
    depends only on the numbers of threads and rows, so the same bits come out again.
    """
    threads = torch.get_num_threads()
    shares = min(threads, len(batch[0]), MOST)
    if shares < 2 or torch.is_grad_enabled() or batch[0].device.type != "cpu":
        return function(*batch)
    inference = torch.is_inference_mode_enabled()

    def answer(share: tuple[Tensor, ...]) -> Tensor:
        with torch.inference_mode(inference), torch.no_grad():
            return function(*share)

    kind = shares, threads // shares
    if kind not in _pools:
        _pools[kind] = ThreadPoolExecutor(shares, thread_name_prefix="rows")
    parts = zip(*(rows.tensor_split(shares) for rows in batch), strict=True)
    torch.set_num_threads(threads // shares)  # a thread keeps the number that is set when it first computes
    try:
        return torch.cat(list(_pools[kind].map(answer, parts)))
    finally:
        torch.set_num_threads(threads)
