"""Stable Diffusion XL (arXiv 2307.01952): a U-Net conditioned on two text encoders, a pooled text, and picture sizes.

The tokens are the last hidden states but one of CLIP and of CLIP with a projection, side by side; the pooled text is
that projection. The sizes are those of a whole picture: original and target size are the prior's, nothing is cropped.
An empty text is zeros if model_index.json says ``force_zeros_for_empty_prompt``, as the base model was trained, and as
diffusers' pipeline does for a negative prompt that is left out; else it is encoded like any text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from gsdistill.core.structs import Embedding
from gsdistill.disk.read import read_json
from gsdistill.models.declared import UNET, Feed
from gsdistill.prior.families.base import Origin, Pretrained
from gsdistill.prior.families.texts import read_by_clip

__all__ = ["StableDiffusionXL"]


class StableDiffusionXL(Pretrained):
    """Noise or v prediction with two CLIP encoders; an autoencoder that would overflow in float16 stays in float32."""

    LORA: ClassVar[tuple[str, ...]] = ("unet", "text_encoder", "text_encoder_2")
    UPCAST: ClassVar[bool] = True
    FEED: ClassVar[Feed] = replace(
        UNET,
        side=128,
        conditions={**UNET.conditions, "addition_embed_type": ("text_time",)},
        widths={
            "cross_attention_dim": (("text_encoder", "hidden_size", 1), ("text_encoder_2", "hidden_size", 1)),
            "projection_class_embeddings_input_dim": (
                ("text_encoder_2", "projection_dim", 1), ("unet", "addition_time_embed_dim", 6),
            ),
        },
    )  # fmt: skip

    def __init__(self, origin: Origin) -> None:
        super().__init__(origin)
        index = read_json(self.folder / "model_index.json")
        self._zeros = index.get("force_zeros_for_empty_prompt", True)  # diffusers' default too

    def encode_texts(self, texts: Sequence[str]) -> list[Embedding]:
        """Both encoders' states side by side, and the second one's projection. One encoder is in memory at a time."""
        from transformers import CLIPTextModel, CLIPTextModelWithProjection

        first = read_by_clip(self, CLIPTextModel, "", texts).hidden_states[-2]
        second = read_by_clip(self, CLIPTextModelWithProjection, "_2", texts)
        tokens, pooled = torch.cat([first, second.hidden_states[-2]], 2), second.text_embeds
        scales = [0.0 if self._zeros and not text else 1.0 for text in texts]
        rows = zip(tokens, pooled, scales, strict=True)
        return [Embedding(scale * row[None], scale * whole[None]) for row, whole, scale in rows]

    def extras(self, latents: Tensor, text: Embedding, cameras: Tensor | None) -> dict[str, Any]:
        """The pooled text, and the sizes in pixels: original, corner of the crop, target."""
        sizes = torch.full((6,), self.image_size, dtype=self.dtype, device=latents.device)
        sizes[2:4] = 0  # set on the device: a list would be sent, and waited for, in each call
        pooled = None if text.pooled is None else text.pooled.to(self.dtype)
        return {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes.expand(len(latents), 6)}}
