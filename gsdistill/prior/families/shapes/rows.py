"""Shares out the rows of a batch to threads that each compute on their own, in place of OpenMP's in every operation.

A small network is hundreds of small operations, and OpenMP's threads wait for each other after every one of them: where
another program wants a processor too, for the one that just lost it. Threads with rows of their own meet once a call.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Shaped
from torch import Tensor

__all__ = ["by_rows"]

MOST = 4  # shares; more threads would wait for Python's lock
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # a child has none of its parent's threads


def by_rows(
    function: Callable[..., Shaped[Tensor, "B ..."]], *batch: Shaped[Tensor, "B ..."]
) -> Shaped[Tensor, "B ..."]:
    """What ``function`` answers to a batch of which no row depends on another.

    On a CPU and without gradients each share has its thread, and torch's threads are divided among them. The division
    follows from their number and that of the rows, so the same bits come again.
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
    torch.set_num_threads(threads // shares)  # a thread keeps the number that holds when it first computes
    try:
        return torch.cat(list(_pools[kind].map(answer, parts)))
    finally:
        torch.set_num_threads(threads)
