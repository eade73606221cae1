"""Processes that train one network together, started by torchrun; without it, one process alone.

    torchrun --nproc-per-node 2 tools/train/shapes_prior.py ...

Every process holds the whole network and takes its share of each step's batch; then all gradients are summed as one
flat tensor, by NCCL on GPUs and by Gloo on CPUs. ``DistributedDataParallel`` would send them in buckets while the
backward still runs, but it lays the first step of a process out in other buckets than the rest, so that with more than
two processes a resumed training rounds otherwise; and it wants the network called in one way only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

from gsdistill.core.device import choose, listed, prepare

__all__ = ["add_up", "count", "joined", "largest", "leader_first", "rank", "spread"]


@contextmanager
def joined(name: str = "auto") -> Iterator[torch.device]:
    """Join the processes that torchrun has started, if it has; yields this one's device, as ``device.choose`` names it.

    ``auto`` and the name of a kind give each process of a machine an accelerator of its own.

    Raises:
        ConfigError: as ``device.choose`` does.
    """
    local = os.environ.get("LOCAL_RANK")
    kind = listed()
    device = choose(f"{kind}:{local}" if local and kind and name in ("auto", kind) else name)
    prepare(device)
    if local is None:
        yield device
        return
    own = distributed.get_default_backend_for_device(device)
    distributed.init_process_group("gloo" if device.type == "cpu" else f"cpu:gloo,{device.type}:{own}")
    try:
        yield device
        distributed.barrier()  # none closes its connections while another one still speaks
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """The number of this process, 0 for the leader, who writes the files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextmanager
def leader_first() -> Iterator[None]:
    """Let the leader do the block before the others do, as for a file that the first one makes and the rest read."""
    if rank() > 0:
        distributed.barrier()
    yield
    if rank() == 0 and count() > 1:
        distributed.barrier()


def spread(tensors: Sequence[Tensor]) -> None:
    """Give all processes the leader's values."""
    for tensor in tensors if count() > 1 else ():
        distributed.broadcast(tensor, 0)


def add_up(tensors: Sequence[Tensor]) -> None:
    """Sum tensors, in place, over the processes."""
    if count() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def largest(*values: float) -> list[float]:
    """The largest of each number over the processes, for what all must agree on; no accelerator is waited for."""
    if count() == 1:
        return list(values)
    agreed = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(agreed, distributed.ReduceOp.MAX)
    return agreed.tolist()
