"""The exponential moving average of a network's weights, which samples better than the weights themselves.

After the update n = 0, 1, 2, ...: average <- d_n average + (1 - d_n) weights, d_n = min(decay, (1 + n) / (10 + n)). At
the start the average is thus short, and forgets the weights that nothing has been learned in: of those a share of
1 / binomial(n + 10, 9) is left as long as d_n is below ``decay``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """``weights`` is what ``model.load_state_dict`` takes; what is no floating number, as a counter, is the latest."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.weights: dict[str, Tensor] = {name: value.clone() for name, value in model.state_dict().items()}
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights as they are now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in model.state_dict().items():
            mean = self.weights[name]
            mean.lerp_(value, 1.0 - decay) if mean.is_floating_point() else mean.copy_(value)
        self.updates += 1

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` takes."""
        return {"weights": self.weights, "updates": self.updates}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same model."""
        for name, value in self.weights.items():
            value.copy_(state["weights"][name])
        self.updates = state["updates"]
