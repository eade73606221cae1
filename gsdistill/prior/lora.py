"""A U-Net's student: LoRA (arXiv 2106.09685) on its attention projections, added by peft to the same module.

The prior's own answers go through the module with the adapter off; the student's with it on and with the caller's
weights in place of the module's. So one copy of the frozen weights serves both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gsdistill.prior.base import Prior, Student
from gsdistill.structs import Embedding

__all__ = ["LoraStudent"]

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


class LoraStudent(Student):
    """W + B A of rank r on every attention projection, scale 1."""

    def __init__(self, prior: Prior, unet: Any, rank: int) -> None:
        from peft import LoraConfig

        self.prior, self._unet, self._rank = prior, unet, rank
        if not getattr(unet, "peft_config", {}):
            unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS))
            unet.disable_adapters()
            unet.requires_grad_(False)

    def initial(self, generator: torch.Generator) -> dict[str, Tensor]:
        """A uniform in 1 / sqrt(fan in) as in peft, drawn from ``generator``; B zero."""
        weights = {}
        for name, value in self._unet.named_parameters():
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
        """The U-Net's raw prediction with the adapter on."""
        dtype = self._unet.dtype
        labels = None if cameras is None else cameras.to(dtype)
        inputs = (latents.to(dtype), timesteps, text.tokens.to(dtype))
        self._unet.enable_adapters()
        try:
            placed = {name: value.to(latents.device) for name, value in weights.items()}
            return torch.func.functional_call(self._unet, placed, inputs, {"class_labels": labels}).sample
        finally:
            self._unet.disable_adapters()
