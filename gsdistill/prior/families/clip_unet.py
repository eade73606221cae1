"""What the families with diffusers' U-Net and CLIP's text encoder share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from gsdistill.core.structs import Embedding
from gsdistill.models.declared import UNET, Feed
from gsdistill.prior.families.base import Pretrained
from gsdistill.prior.families.texts import read_by_clip

__all__ = ["ClipUNet"]


class ClipUNet(Pretrained):
    """A U-Net conditioned on the last hidden states of CLIP, and on the camera, if any, by its class embedding."""

    LORA: ClassVar[tuple[str, ...]] = ("unet", "text_encoder")
    FEED: ClassVar[Feed] = UNET

    def encode_texts(self, texts: Sequence[str]) -> list[Embedding]:
        """The last hidden states of CLIP, [1, L, D] for each text."""
        from transformers import CLIPTextModel

        return [Embedding(row[None]) for row in read_by_clip(self, CLIPTextModel, "", texts).last_hidden_state]

    def extras(self, latents: Tensor, text: Embedding, cameras: Tensor | None) -> dict[str, Any]:
        """The camera features as class labels."""
        return {"class_labels": None if cameras is None else cameras.to(self.dtype)}
