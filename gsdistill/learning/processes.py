"""Processes that train one network together, started by torchrun; without it, one process alone.

    torchrun --nproc-per-node 2 tools/train/shapes_prior.py ...

Every process holds the whole network and takes its share of each step's batch; then all gradients are summed as one
flat tensor, by NCCL on GPUs and by Gloo on CPUs. ``DistributedDataParallel`` is not used: it sends gradients in buckets
during the backward, and the buckets of a process's first step differ from those of later steps, so that with more than
two processes a resumed training is rounded differently. It also allows only one way to call the network.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

from gsdistill.core.device import choose, listed, prepare

__all__ = ["add_up", "broadcast", "count", "join", "largest", "leader_first", "rank"]


@contextmanager
def join(name: str = "auto") -> Iterator[torch.device]:
    """Join the processes that torchrun started, if it did, until the block ends; yields the device of this process.

    ``name`` is a device as ``device.choose`` takes it; with ``auto``, or the name of a kind of accelerator, each
    process of a machine gets an accelerator of its own.

    Raises:
        ConfigError: there is no such device.
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
        distributed.barrier()  # no process closes its connections while another still needs them
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """The number of this process; process 0 is the leader and writes the files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """The number of processes that train together; 1 without torchrun."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextmanager
def leader_first() -> Iterator[None]:
    """Run the block in the leader first and then in the other processes, for files that the leader makes."""
    if rank() > 0:
        distributed.barrier()
    yield
    if rank() == 0 and count() > 1:
        distributed.barrier()


def broadcast(tensors: Sequence[Tensor]) -> None:
    """Overwrite the tensors in all processes with the leader's values."""
    for tensor in tensors if count() > 1 else ():
        distributed.broadcast(tensor, 0)


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor, in place, by its sum over the processes."""
    if count() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def largest(*values: float) -> list[float]:
    """The largest of each number over the processes, so that all agree on it; does not wait for an accelerator."""
    if count() == 1:
        return list(values)
    maxima = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(maxima, distributed.ReduceOp.MAX)
    return maxima.tolist()
