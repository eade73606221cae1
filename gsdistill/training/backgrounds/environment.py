"""A surrounding that is learned with the scene: a small network of the direction in which a pixel looks.

As the neural environment map of threestudio (its background/neural_environment_map_background.py): the real spherical
harmonics of the direction go through layers without biases, ReLU between them and a sigmoid behind them. Without hidden
layers it is the spherical harmonics themselves. It belongs to the run, not to the splat: what is exported has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import normalize

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Cameras, Render
from gsdistill.renderer.harmonics import sh_basis
from gsdistill.renderer.maps import surface_points
from gsdistill.representation.optimizer import Optimizer, OptimSettings
from gsdistill.settings.ramp import Ramp
from gsdistill.training.backgrounds.base import Background, Learned

__all__ = ["Environment"]

ADAM = OptimSettings(betas=(0.9, 0.999), eps=1e-8)  # torch's, as the released configs have for this network


@dataclass(frozen=True, kw_only=True)
class Environment(Background):
    """Settings of a learned surrounding; their defaults are threestudio's."""

    random: float = bounded(0.5, low=0, high=1)  # share of the views that have a random colour instead
    # what all views of a step share: none, the kind (each random colour is its own), or the kind and the random colour
    shared: Literal["none", "kind", "all"] = "kind"
    degree: int = bounded(2, low=0, high=3)  # of the spherical harmonics
    width: int = bounded(16, low=1, high=256)  # of a hidden layer
    layers: int = bounded(2, low=0, high=8)  # hidden ones
    rate: Ramp = bounded(Ramp(0.001, 0.001), low=0)  # learning rate of its Adam

    @property
    def own(self) -> Float[Tensor, "4"]:
        """A mark that it is learned."""
        return torch.tensor([0.0, 0.0, 0.0, 1.0])

    def begin(self, before: Learned | None, generator: torch.Generator, device: torch.device) -> Learned:
        """The surrounding of the stage before if it has the same form, else a new one."""
        if isinstance(before, _Surrounding) and before.form == self.form:
            before.settings = self
            return before
        return _Surrounding(self, generator, device)

    @property
    def form(self) -> tuple[int, ...]:
        """The widths of the network, from what it reads to the colour."""
        return ((self.degree + 1) ** 2, *[self.width] * self.layers, 3)


class _Surrounding(Learned):
    """The network of an :class:`Environment` and its optimisers."""

    def __init__(self, settings: Environment, generator: torch.Generator, device: torch.device) -> None:
        self.settings, self.form = settings, settings.form
        weights = []
        for inputs, outputs in pairwise(self.form):  # uniform, as torch's linear layers begin
            uniform = torch.rand(outputs, inputs, generator=generator, device=generator.device)
            weights.append(((2 * uniform - 1) / inputs**0.5).to(device, torch.float32))
        self.weights = [Parameter(weight) for weight in weights]
        self.optimizers = [Optimizer(weight, ADAM) for weight in self.weights]

    def behind(self, render: Render, cameras: Cameras, where: Float[Tensor, "B"]) -> Render:
        shown = self.colors(directions(cameras)) * where[:, None, None, None]
        return replace(render, images=render.images + (1.0 - render.alphas) * shown)

    def colors(self, directions: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
        """What is seen in directions of unit length, RGB in 0..1."""
        x = sh_basis(directions, self.settings.degree)
        for weight in self.weights[:-1]:
            x = (x @ weight.T).relu()
        return (x @ self.weights[-1].T).sigmoid()

    def update(self, progress: float, good: Bool[Tensor, ""]) -> None:
        sums = [weight.grad.square().sum() for weight in self.weights if weight.grad is not None]
        finite = good & torch.stack(sums).isfinite().all() if sums else good
        for optimizer in self.optimizers:
            optimizer.step(self.settings.rate(progress), (~finite).float())

    def state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for number, (weight, optimizer) in enumerate(zip(self.weights, self.optimizers, strict=True)):
            state[f"{number}.weight"] = weight
            state |= {f"{number}.{name}": value for name, value in self._moments(weight, optimizer).items()}
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for number, (weight, optimizer) in enumerate(zip(self.weights, self.optimizers, strict=True)):
                weight.copy_(state[f"{number}.weight"])
                optimizer.state[weight] = {
                    name: state[f"{number}.{name}"].to(weight.device) for name in self._moments(weight, optimizer)
                }

    def _moments(self, weight: Parameter, optimizer: Optimizer) -> dict[str, Any]:
        """Adam's numbers of a weight, zeros before the first step."""
        zeros = {"step": torch.zeros(()), "exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
        return {**zeros, **optimizer.state[weight]}


def directions(cameras: Cameras) -> Float[Tensor, "B H W 3"]:
    """The direction in world axes, of unit length, in which each pixel looks from its middle."""
    ahead = cameras.Ks.new_ones(len(cameras), cameras.height, cameras.width)
    eyes = surface_points(torch.zeros_like(ahead[:, :1, :1]), cameras)
    return normalize(surface_points(ahead, cameras) - eyes, dim=-1)
