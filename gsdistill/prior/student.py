"""A student of a network: LoRA (arXiv 2106.09685) on its attention projections.

A projection computes W x. While the student predicts, a hook adds B A x with the caller's weights; afterwards the
module is the prior's again, so that both share one copy of the frozen weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Linear, Module
from torch.nn.functional import linear

from gsdistill.core.structs import Embedding
from gsdistill.prior.base import Prior, Student

__all__ = ["LoraStudent"]

Inputs = Callable[[Tensor, Tensor, Embedding, Tensor | None], dict[str, Any]]
Output = Callable[[Tensor], Tensor]

TARGETS = (".to_q", ".to_k", ".to_v", ".to_out.0")  # how the names of attention projections end
_PROJECTIONS: WeakKeyDictionary[Module, dict[str, Linear]] = WeakKeyDictionary()  # found once, not in each step


class LoraStudent(Student):
    """W + B A of rank r on every attention projection, at scale 1; ``NAME.A`` is [r, in], ``NAME.B`` is [out, r]."""

    def __init__(self, prior: Prior, module: Module, inputs: Inputs, output: Output, rank: int) -> None:
        """``inputs`` makes the module's arguments, ``output`` takes the prediction from the tensor that it returns."""
        self.prior, self._module, self._inputs, self._output = prior, module, inputs, output
        if module not in _PROJECTIONS:
            layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, Linear)}
            _PROJECTIONS[module] = {name: layer for name, layer in layers.items() if name.endswith(TARGETS)}
        self._layers, self.shapes = _PROJECTIONS[module], {}
        for name, layer in self._layers.items():
            self.shapes |= {f"{name}.A": (rank, layer.in_features), f"{name}.B": (layer.out_features, rank)}

    def initial(self, generator: torch.Generator) -> Float[Tensor, " P"]:
        """A uniform in +-1 / sqrt(fan in), drawn with ``generator``; B zero."""
        size = sum(rows * columns for rows, columns in self.shapes.values())
        weights = 2 * torch.rand(size, generator=generator, device=generator.device) - 1
        for name, part in self.named(weights).items():
            if name.endswith(".A"):
                part /= part.shape[1] ** 0.5
            else:
                part.zero_()
        return weights

    def network(
        self,
        weights: Mapping[str, Tensor],
        latents: Float[Tensor, "B C h w"],
        timesteps: Int[Tensor, "B"],
        text: Embedding,
        cameras: Float[Tensor, "B F"] | None,
    ) -> Float[Tensor, "B C h w"]:
        """The network's raw prediction with B A x added to its projections, in the precision of ``weights``."""
        with ExitStack() as hooks:
            for name, layer in self._layers.items():
                added = partial(_add, weights[f"{name}.A"], weights[f"{name}.B"])
                hooks.enter_context(layer.register_forward_hook(added))
            return self._output(self._module(**self._inputs(latents, timesteps, text, cameras)).sample)


def _add(a: Tensor, b: Tensor, layer: Linear, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    (x,) = inputs
    return (output + linear(linear(x.to(a.dtype), a), b)).to(output.dtype)
