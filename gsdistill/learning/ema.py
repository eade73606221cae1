"""The exponential moving average of a network's weights; a network with averaged weights gives better samples.

Update n = 0, 1, 2, ... is average <- d_n average + (1 - d_n) weights, with d_n = min(decay, (1 + n) / (10 + n)). So the
first averages are over few steps and forget the untrained weights quickly: after update n their share of the average is
1 / binomial(n + 10, 9), as long as d_n is below ``decay``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """Holds the average in ``weights``, by the names of ``model.state_dict``; integers, such as counters, are copied.

    ``decay`` is in 0..1, and 0 makes ``weights`` a copy of the latest weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.weights: dict[str, Tensor] = {name: value.clone() for name, value in model.state_dict().items()}
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Average in the present weights of ``model``."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in model.state_dict().items():
            mean = self.weights[name]
            mean.lerp_(value, 1.0 - decay) if mean.is_floating_point() else mean.copy_(value)
        self.updates += 1

    def state(self) -> dict[str, Any]:
        """The average and the number of updates, for :meth:`restore`; the tensors are not copied."""
        return {"weights": self.weights, "updates": self.updates}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Copy a :meth:`state` of the same model."""
        for name, value in self.weights.items():
            value.copy_(state["weights"][name])
        self.updates = state["updates"]
