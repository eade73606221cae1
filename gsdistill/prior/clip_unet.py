"""What the families share whose network is diffusers' U-Net and whose text encoder is CLIP's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gsdistill.prior.declared import UNET, Feed
from gsdistill.prior.parts import load_model, load_part
from gsdistill.prior.pretrained import Pretrained
from gsdistill.structs import Embedding

__all__ = ["ClipUNet", "read_by_clip"]


class ClipUNet(Pretrained):
    """A U-Net told a text by the last hidden states of CLIP, and a camera, if any, by its class embedding."""

    PARTS: ClassVar[tuple[str, ...]] = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
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


def read_by_clip(prior: Pretrained, kind: Any, last: str, texts: Sequence[str]) -> Any:
    """What the folder's ``text_encoder<last>``, of class ``kind``, answers to texts, all hidden states with it.

    Raises:
        PromptError: a text is longer than it reads.
    """
    from transformers import CLIPTokenizer

    part = f"text_encoder{last}"
    tokenizer = load_part(CLIPTokenizer.from_pretrained, prior.folder, f"tokenizer{last}")
    encoder = prior.with_lora(load_model(kind, prior.folder, part, torch.float32, prior.device), part)
    limit = encoder.config.max_position_embeddings
    prior.check_length(tokenizer, texts, limit)
    ids = tokenizer(list(texts), padding="max_length", max_length=limit, return_tensors="pt").input_ids
    return encoder(ids.to(prior.device), output_hidden_states=True)
