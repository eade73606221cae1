"""How one parameter follows its gradient: Adam (arXiv 1412.6980), AdamW (1711.05101) or Adan (2208.06677).

Adam and AdamW are torch's fused kernels. ``torch.optim.Adam`` computes the same numbers, but its first use imports
torch's compiler, which takes 0.7 s at the start of every run, and a step of five of them takes half as long again.

Adan is written out here, because torch has none, and those of other packages cannot skip a step that a tensor on the
device says is bad. With the gradient g of step n, the one before g', three betas and every moment 0 at first,

    m = b1 m + (1 - b1) g,    d = b2 d + (1 - b2) (g - g'),    v = b3 v + (1 - b3) (g + b2 (g - g'))^2,
    p = [p - rate (m / (1 - b1^n) + b2 d / (1 - b2^n)) / (sqrt(v / (1 - b3^n)) + eps)] / (1 + rate weight_decay),

and g' = g in the first step: the authors' program with ``no_prox`` off. ``state`` and ``param_groups`` have the layout
of torch's optimisers because gsplat's growing and pruning change them: new Gaussians begin with moments of 0, for Adan
with a g' of 0 as well.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Parameter
from torch.optim.adam import adam

from gsdistill.core.device import heeds_found_inf
from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.settings.ramp import Ramp

__all__ = ["MOMENTS", "OptimSettings", "Optimizer"]

# What each rule remembers of a parameter, in its shape; beside these there is its number of steps, ``step``.
MOMENTS = {
    "adam": ("exp_avg", "exp_avg_sq"),
    "adamw": ("exp_avg", "exp_avg_sq"),
    "adan": ("exp_avg", "exp_avg_sq", "exp_avg_diff", "previous_grad"),
}


@dataclass(frozen=True)
class OptimSettings:
    """How the Gaussians follow their gradients, and the learning rates, each a schedule over the stage."""

    means: Ramp = bounded(Ramp(0.01, 0.001), low=0)  # relative to the extent of the initial scene, or by means_unit
    # extent: the distance of the farthest Gaussian of the initial scene from the origin; world: world units
    means_unit: Literal["extent", "world"] = "extent"
    scales: Ramp = bounded(Ramp(0.012, 0.0036), low=0)  # of the logarithm
    quats: Ramp = bounded(Ramp(0.01, 0.003), low=0)
    opacities: Ramp = bounded(Ramp(0.05, 0.015), low=0)  # of the logit
    sh: Ramp = bounded(Ramp(0.04, 0.012), low=0)
    betas: tuple[float, ...] = bounded((0.9, 0.99), low=0, below=1)  # decays of the moments: two, or adan's three
    rule: Literal["adam", "adamw", "adan"] = "adam"  # a stage of another rule begins without moments
    # added to the root of the second moment; tiny as in 3D Gaussian Splatting, whose gradients are small
    eps: float = bounded(1e-15, above=0)
    # pull of all parameters to 0: adam adds it times the parameter to the gradient; adamw and adan shrink the parameter
    # by this share of itself times the rate
    weight_decay: float = bounded(0.0, low=0)
    # most that the norm of all gradients together may be, to which larger ones are scaled; 0: as large as they are
    max_grad_norm: float = bounded(0.0, low=0)

    def __post_init__(self) -> None:
        count, example = (3, "[0.98, 0.92, 0.99]") if self.rule == "adan" else (2, "[0.9, 0.99]")
        if len(self.betas) != count:
            raise ConfigError(f"optim.betas = {list(self.betas)}: {self.rule} takes {count} values, such as {example}")


class Optimizer:
    """The optimiser of one parameter, held in ``param_groups``; ``state`` has its step count and moments."""

    def __init__(self, parameter: Parameter, settings: OptimSettings) -> None:
        """Begin without moments, which the first step makes."""
        self.param_groups: list[dict[str, Any]] = [{"params": [parameter]}]
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        self.settings = settings

    def begin(self, settings: OptimSettings, anew: bool) -> None:
        """Follow other settings from now on; moments are forgotten if ``anew`` is set or the rule is another."""
        if anew or settings.rule != self.settings.rule:
            self.state.clear()
        self.settings = settings

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
            state |= {name: torch.zeros_like(parameter) for name in MOMENTS[self.settings.rule]}
        follow = _follow_adan if self.settings.rule == "adan" else _follow_adam
        follow(parameter, gradient, state, self.settings, rate, found_inf)
        parameter.grad = None


def _follow_adam(
    parameter: Parameter,
    gradient: Tensor,
    state: dict[str, Tensor],
    settings: OptimSettings,
    rate: float,
    found_inf: Float[Tensor, ""],
) -> None:
    """A step of Adam or AdamW."""
    changed = (parameter, state["exp_avg"], state["exp_avg_sq"])
    copies = [] if heeds_found_inf(parameter.device) else [(value, value.clone()) for value in changed]
    adam(
        [parameter], [gradient], [state["exp_avg"]], [state["exp_avg_sq"]], [], [state["step"]],
        fused=True, found_inf=found_inf, decoupled_weight_decay=settings.rule == "adamw", amsgrad=False,
        beta1=settings.betas[0], beta2=settings.betas[1], lr=rate, weight_decay=settings.weight_decay,
        eps=settings.eps, maximize=False,
    )  # fmt: skip
    for value, before in copies:
        value.copy_(torch.where(found_inf > 0, before, value))


def _follow_adan(
    parameter: Parameter,
    gradient: Tensor,
    state: dict[str, Tensor],
    settings: OptimSettings,
    rate: float,
    found_inf: Float[Tensor, ""],
) -> None:
    """A step of Adan."""
    first, second, third = settings.betas
    step = state["step"] + 1.0
    change = gradient - torch.where(step == 1.0, gradient, state["previous_grad"])
    mean = torch.lerp(gradient, state["exp_avg"], first)
    difference = torch.lerp(change, state["exp_avg_diff"], second)
    square = torch.lerp((gradient + second * change).square(), state["exp_avg_sq"], third)
    towards = mean / _filled(first, step) + second * difference / _filled(second, step)
    moved = parameter - rate * towards / ((square / _filled(third, step)).sqrt() + settings.eps)
    after = {
        "step": step, "exp_avg": mean, "exp_avg_sq": square, "exp_avg_diff": difference, "previous_grad": gradient
    }  # fmt: skip
    state |= {name: torch.where(found_inf > 0, state[name], value) for name, value in after.items()}
    parameter.copy_(torch.where(found_inf > 0, parameter, moved / (1.0 + rate * settings.weight_decay)))


def _filled(beta: float, step: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """1 - beta^step, without the rounding of a power near 1: how full a moving average is that began with 0."""
    return -torch.expm1(step * math.log(beta)) if beta else torch.ones_like(step)
