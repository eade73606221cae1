"""What the families share whose network is diffusers' U-Net and whose text encoder is CLIP's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

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

    def extras(self, latents: Tensor, text: Embedding, cameras: Tensor | None) -> dict[str, Any]:
        """The camera as a class."""
        return {"class_labels": None if cameras is None else cameras.to(self.dtype)}
