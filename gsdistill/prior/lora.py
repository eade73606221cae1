"""A network's student: LoRA (arXiv 2106.09685) on its attention projections, added by peft to the same module.

The prior's own answers go through the module with the adapter off; the student's with it on and with the caller's
weights in place of the module's. So one copy of the frozen weights serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gsdistill.prior.base import Prior, Student
from gsdistill.structs import Embedding

__all__ = ["LoraStudent"]

Inputs = Callable[[Tensor, Tensor, Embedding, Tensor | None], dict[str, Any]]
Output = Callable[[Tensor], Tensor]

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


class LoraStudent(Student):
    """W + B A of rank r on every attention projection, scale 1."""

    def __init__(self, prior: Prior, module: Any, inputs: Inputs, output: Output, rank: int) -> None:
        """``inputs`` forms the module's arguments, ``output`` takes the prediction out of what it returns."""
        from peft import LoraConfig

        self.prior, self._module, self._inputs, self._output, self._rank = prior, module, inputs, output, rank
        if not getattr(module, "peft_config", {}):
            module.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS))
            module.disable_adapters()
            module.requires_grad_(False)

    def initial(self, generator: torch.Generator) -> dict[str, Tensor]:
        """A uniform in 1 / sqrt(fan in) as in peft, drawn from ``generator``; B zero."""
        weights = {}
        for name, value in self._module.named_parameters():
            if ".lora_" not in name:
                continue
            shape = list(value.shape)
            shape[0 if ".lora_A." in name else 1] = self._rank  # the module's own may be another student's
            uniform = 2 * torch.rand(shape, generator=generator, device=generator.device) - 1
            weights[name] = uniform / shape[1] ** 0.5 if ".lora_A." in name else torch.zeros_like(uniform)
        return weights

    def network(
        self,
        weights: Mapping[str, Tensor],
        latents: Float[Tensor, "B C h w"],
        timesteps: Int[Tensor, "B"],
        text: Embedding,
        cameras: Float[Tensor, "B F"] | None,
    ) -> Float[Tensor, "B C h w"]:
        """The network's raw prediction with the adapter on."""
        inputs = self._inputs(latents, timesteps, text, cameras)
        self._module.enable_adapters()
        try:
            placed = {name: value.to(latents.device) for name, value in weights.items()}
            return self._output(torch.func.functional_call(self._module, placed, (), inputs).sample)
        finally:
            self._module.disable_adapters()
