"""Adam (D. Kingma, J. Ba, arXiv 1412.6980) of one parameter, by torch's fused kernel.

``torch.optim.Adam`` has the same numbers; but its first use imports torch's compiler, 0.7 s of the start of every run,
and a step of five of them takes half as long again. State and groups look like its own, for gsplat's growing and
pruning.
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
    """``state`` holds step count and moments by parameter, ``param_groups`` the parameter."""

    def __init__(self, parameter: Parameter, betas: tuple[float, float]) -> None:
        """``betas`` are the decays of the two moments."""
        self.param_groups: list[dict[str, Any]] = [{"params": [parameter]}]
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        self.betas = betas

    @torch.no_grad()
    def step(self, rate: float, found_inf: Float[Tensor, ""]) -> None:
        """Update the parameter and drop its gradient; where ``found_inf`` is 1 nothing changes, not even the count."""
        (parameter,) = self.param_groups[0]["params"]
        gradient = parameter.grad
        if gradient is None:
            return
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        held = (parameter, state["exp_avg"], state["exp_avg_sq"])
        kept = [] if heeds_found_inf(parameter.device) else [(value, value.clone()) for value in held]
        adam(
            [parameter], [gradient], [state["exp_avg"]], [state["exp_avg_sq"]], [], [state["step"]],
            fused=True, found_inf=found_inf, amsgrad=False, beta1=self.betas[0], beta2=self.betas[1], lr=rate,
            weight_decay=0.0, eps=EPS, maximize=False,
        )  # fmt: skip
        for value, before in kept:
            value.copy_(torch.where(found_inf > 0, before, value))
        parameter.grad = None
