"""What the families share whose network is diffusers' U-Net and whose text encoder is CLIP's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from gsdistill.core.structs import Embedding
from gsdistill.models.declared import UNET, Feed
from gsdistill.prior.families.base import Pretrained
from gsdistill.prior.families.texts import read_by_clip

__all__ = [
    "ClipUNet",
]


class ClipUNet(Pretrained):
    """A U-Net told a text by the last hidden states of CLIP, and a camera, if any, by its class embedding."""

    LORA: ClassVar[tuple[str, ...]] = ("unet", "text_encoder")
    FEED: ClassVar[Feed] = UNET

    def encode_texts(self, texts: Sequence[str]) -> list[Embedding]:
        """The last hidden states of CLIP."""
        from transformers import CLIPTextModel

        return [Embedding(row[None]) for row in read_by_clip(self, CLIPTextModel, "", texts).last_hidden_state]

    def inputs(
        self,
        latents: Float[Tensor, "B C h w"],
        timesteps: Int[Tensor, "B"],
        text: Embedding,
        cameras: Float[Tensor, "B F"] | None,
    ) -> dict[str, Any]:
        """Latents, timesteps, tokens, and the camera as a class."""
        return {
            "sample": latents.to(self.dtype),
            "timestep": self._told[timesteps],
            "encoder_hidden_states": text.tokens.to(self.dtype),
            "class_labels": None if cameras is None else cameras.to(self.dtype),
        }
