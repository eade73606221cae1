"""Muon: momentum whose every step is an orthogonal matrix (K. Jordan et al., 2024, kellerjordan.github.io/posts/muon).

Of the momentum M of a matrix, or of a convolution as the matrix [out, in k k], the step is U V^T of M = U S V^T, so
that all directions are learnt at the same pace. Five steps of a Newton-Schulz iteration in bfloat16 come near to it:

    X <- 3.4445 X + (-4.7750 A + 2.0315 A^2) X,   A = X X^T,   from X = M / |M|.

It is scaled by 0.2 sqrt(max(out, in)), the size of AdamW's steps (arXiv 2502.16982, section 2.2), so that both share
one learning rate. Processes share out the matrices, for the iteration costs as much however small the batch is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, distributed, nn

from gsdistill.learning.processes import count, rank

__all__ = ["Muon", "orthogonalised"]

_STEPS, _A, _B, _C = 5, 3.4445, -4.7750, 2.0315


class Muon(torch.optim.Optimizer):
    """For parameters of two dimensions or more, all of which get a gradient in every step."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override] # there is no closure
        """Move every parameter; the processes then hold the same bits."""
        for group in self.param_groups:
            for parameter in group["params"]:
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(_gradient(parameter), 1 - group["momentum"])
        for process, number, parameter in self._shares:
            if process == rank():
                group = self.param_groups[number]
                momentum = self.state[parameter]["momentum"]
                ahead = _gradient(parameter).lerp(momentum, group["momentum"])  # Nesterov's
                step = orthogonalised(ahead.flatten(1)).view_as(parameter)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(step.to(parameter.dtype), alpha=-group["lr"] * 0.2 * max(ahead.flatten(1).shape) ** 0.5)
        self._spread()

    @cached_property
    def _shares(self) -> list[tuple[int, int, nn.Parameter]]:
        """Which process moves which parameter of which group: the costliest first, each to whom has least to do."""
        every = [(number, p) for number, group in enumerate(self.param_groups) for p in group["params"]]
        loads, shares = [0] * count(), []
        for number, parameter in sorted(every, key=lambda one: -_cost(one[1])):
            process = loads.index(min(loads))
            loads[process] += _cost(parameter)
            shares.append((process, number, parameter))
        return shares

    def _spread(self) -> None:
        """Give all processes what each has moved."""
        for process in range(count()) if count() > 1 else ():
            moved = [parameter for owner, _, parameter in self._shares if owner == process]
            if not moved:
                continue
            flat = torch.cat([parameter.flatten() for parameter in moved])
            distributed.broadcast(flat, process)
            for parameter, part in zip(moved, flat.split([p.numel() for p in moved]), strict=True):
                parameter.copy_(part.view_as(parameter))


def orthogonalised(matrix: Tensor) -> Tensor:
    """The nearly orthogonal matrix of the same singular vectors.

    Singular values above about 1/500 of the matrix's norm come to 0.7..1.2; smaller ones stay smaller.
    """
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(_STEPS):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * (gram @ gram)) @ x
    return x.T if tall else x


def _gradient(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        raise ValueError("Muon moves parameters that have a gradient")
    return parameter.grad


def _cost(parameter: Tensor) -> int:
    """Multiplications of one product of the iteration."""
    rows = parameter.shape[0]
    return parameter.numel() * min(rows, parameter.numel() // rows)
