"""Floating-point operations of a step, counted while torch executes it, and the fastest matrix product of the device.

A multiply-add counts as two operations. Only matrix products, convolutions and attention are counted
(torch.utils.flop_counter). The renderers are not: torch does not see inside their kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from gsdistill.prior.base import Prior
from gsdistill.training.clock import Clock
from gsdistill.training.distiller import Step

__all__ = ["Ceiling", "Flops", "count", "count_step", "matmul_ceiling"]

LARGEST, ENOUGH, TRIES = 16_384, 0.02, 5  # last side of the matrices; seconds of the last product; products a size


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one step."""

    network: int  # all but the encoder: the network, training of a student, and a few products of camera matrices
    evaluations: int  # samples that went through the network in that step
    encode: int  # the encoder, forward
    encode_backward: int


@dataclass(frozen=True)
class Ceiling:
    """The fastest product of two square matrices that was measured."""

    flops_per_second: float
    side: int  # rows and columns of each matrix
    dtype: str  # as in "float32"


def count(work: Callable[[], Any]) -> int:
    """Run ``work`` and return its floating-point operations.

    It runs without torch.compile and in one thread, because the counter sees neither compiled code nor other threads.
    """
    counter, threads = FlopCounterMode(display=False, custom_mapping=_ATTENTION), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.compiler.set_stance("force_eager"), counter:
            work()
    finally:
        torch.set_num_threads(threads)
    return counter.get_total_flops()


def count_step(prior: Prior, step: Callable[[], Step]) -> Flops:
    """Make one step and count its operations; those of the encoder are counted by encoding its images once more."""
    records: list[Step] = []
    total = count(lambda: records.append(step()))
    images, latents = records[0].images.clone().requires_grad_(), []
    forward = count(lambda: latents.append(prior.encode(images)))
    backward = count(lambda: latents[0].sum().backward())
    return Flops(total - forward - backward, records[0].evaluations, forward, backward)


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> Ceiling:
    """Multiply square matrices of growing size until one product takes 0.02 seconds; returns the best rate."""
    best, side = Ceiling(0.0, 0, str(dtype).removeprefix("torch.")), 512
    while True:
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        out, clock = torch.empty_like(left), Clock(device)
        for _ in range(TRIES):
            with clock("product"):
                torch.mm(left, right, out=out)
        clock.settle(wait=True)
        quickest = min(clock.laps["product"])
        if (rate := 2 * side**3 / quickest) > best.flops_per_second:
            best = Ceiling(rate, side, best.dtype)
        if quickest > ENOUGH or side == LARGEST:
            return best
        side *= 2


def _forward(query: Any, key: Any, value: Any, *more: Any, **options: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _backward(gradient: Any, query: Any, key: Any, value: Any, *more: Any, **options: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


# The CPU's fused attention, which torch's own table of formulas does not contain.
_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
}
