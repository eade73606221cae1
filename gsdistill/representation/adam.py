"""Adam (D. Kingma, J. Ba, arXiv 1412.6980) of one parameter, by torch's fused kernel.

``torch.optim.Adam`` computes the same numbers, but its first use imports torch's compiler, which takes 0.7 s at the
start of every run, and a step of five of them takes half as long again. ``state`` and ``param_groups`` have its layout
because gsplat's growing and pruning change them.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Parameter
from torch.optim.adam import adam

from gsdistill.core.device import heeds_found_inf

__all__ = ["Adam"]

EPS = 1e-15  # as in 3D Gaussian Splatting, whose gradients are small


class Adam:
    """Adam of one parameter, held in ``param_groups``; ``state`` has its step count and moments."""

    def __init__(self, parameter: Parameter, betas: tuple[float, float]) -> None:
        """``betas`` in 0..1 are the decays of the two moments."""
        self.param_groups: list[dict[str, Any]] = [{"params": [parameter]}]
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        self.betas = betas

    @torch.no_grad()
    def step(self, rate: float, found_inf: Float[Tensor, ""]) -> None:
        """Update the parameter at the learning rate ``rate`` and drop its gradient.

        If ``found_inf`` is 1, nothing else changes, not even the step count; without a gradient nothing happens.
        """
        (parameter,) = self.param_groups[0]["params"]
        gradient = parameter.grad
        if gradient is None:
            return
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        changed = (parameter, state["exp_avg"], state["exp_avg_sq"])
        copies = [] if heeds_found_inf(parameter.device) else [(value, value.clone()) for value in changed]
        adam(
            [parameter], [gradient], [state["exp_avg"]], [state["exp_avg_sq"]], [], [state["step"]],
            fused=True, found_inf=found_inf, amsgrad=False, beta1=self.betas[0], beta2=self.betas[1], lr=rate,
            weight_decay=0.0, eps=EPS, maximize=False,
        )  # fmt: skip
        for value, before in copies:
            value.copy_(torch.where(found_inf > 0, before, value))
        parameter.grad = None
