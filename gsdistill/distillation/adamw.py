"""AdamW (arXiv 1711.05101) as a function, so that the state of the step before stays whole.

A state has the weights (by any name), their ``mean`` and ``square`` moments, and the count of ``steps``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.distillation.base import State

__all__ = ["AdamW"]


@dataclass(frozen=True)
class AdamW:
    """The settings of torch's optimiser of this name, and a warm-up.

    With a warm-up of n steps the rate of step k is (k - 1) / (n + 1) of the whole, until it is reached: that of the
    first step is 0.
    """

    rate: float
    betas: tuple[float, float]
    epsilon: float
    decay: float
    warm_up: int = 0

    def update(self, state: State, name: str, slope: Float[Tensor, " P"]) -> State:
        """One step of the weights called ``name``; none where the slope is not finite."""
        steps = state["steps"] + 1
        mean = torch.lerp(slope, state["mean"], self.betas[0])
        square = torch.lerp(slope.square(), state["square"], self.betas[1])
        size = (square / (1 - self.betas[1] ** steps)).sqrt() + self.epsilon
        step = mean / (1 - self.betas[0] ** steps) / size + self.decay * state[name]
        rate = self.rate * ((steps - 1) / (self.warm_up + 1)).clamp_max(1) if self.warm_up else self.rate
        after = {name: state[name] - rate * step, "mean": mean, "square": square, "steps": steps}
        good = slope.square().sum().isfinite()  # one bad answer must not stay in the weights
        return {key: torch.where(good, value, state[key]) for key, value in after.items()}
