"""Floating-point operations of a step, counted as torch calls them, and the most that the device makes of a product.

A multiply-add counts as two. Only products, convolutions and attention are counted (torch.utils.flop_counter); the
renderers are kernels of their own, which it does not see.
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

LARGEST, ENOUGH, TRIES = 16_384, 0.02, 5  # side of the matrices; seconds of one product; products of each size


@dataclass(frozen=True)
class Flops:
    """Operations of one step."""

    network: int  # all but the encoder's: the network, a student's training, and a few products of camera matrices
    evaluations: int  # samples through the network in that step
    encode: int  # the encoder, forward
    encode_backward: int


@dataclass(frozen=True)
class Ceiling:
    """The fastest product of two square matrices."""

    flops_per_second: float
    side: int
    dtype: str


def count(work: Callable[[], Any]) -> int:
    """The operations of what ``work`` calls.

    The counter sees neither what is compiled, which runs as it was written here, nor other threads: there is one.
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
    """The operations of one step, and the encoder's share of it from its images, encoded once more."""
    records: list[Step] = []
    total = count(lambda: records.append(step()))
    images, latents = records[0].images.clone().requires_grad_(), []
    forward = count(lambda: latents.append(prior.encode(images)))
    backward = count(lambda: latents[0].sum().backward())
    return Flops(total - forward - backward, records[0].evaluations, forward, backward)


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> Ceiling:
    """Multiply square matrices of growing size, until one product takes long enough, and keep the best rate."""
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


# The CPU's fused attention, which torch's own table of formulas lacks.
_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
}
