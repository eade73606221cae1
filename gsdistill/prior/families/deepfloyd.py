"""DeepFloyd IF, stage I: a U-Net on 64 x 64 pixels, conditioned on T5.

Latents are the image itself in -1..1. The U-Net predicts the noise and, in three more channels, a variance, which is
dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from gsdistill.core.structs import Embedding
from gsdistill.models.declared import UNET, Feed
from gsdistill.prior.codec import Codec, PixelCodec
from gsdistill.prior.families.base import Pretrained
from gsdistill.prior.families.texts import load_reader

__all__ = ["DeepFloyd"]

TOKENS = 77  # the number in training; T5 itself could read more


class DeepFloyd(Pretrained):
    """Noise prediction in pixel space."""

    LORA: ClassVar[tuple[str, ...]] = ("unet",)
    FEED: ClassVar[Feed] = replace(UNET, widths={"cross_attention_dim": (("text_encoder", "d_model", 1),)})

    def codec(self, latent_size: int) -> Codec:
        """Pixels as latents."""
        settings = self.origin.settings
        return PixelCodec(latent_size, 1, settings.vae, settings.recompute_encoder)

    def prepared(self, text: str, negative: bool) -> str:
        """The text in lower case, as in training."""
        return text.lower().strip()

    def encode_texts(self, texts: Sequence[str]) -> list[Embedding]:
        """The last hidden states of T5, which gets a mask of the padding; the U-Net reads all of them."""
        from transformers import T5EncoderModel, T5Tokenizer

        tokenizer, encoder = load_reader((T5Tokenizer, T5EncoderModel), self.origin)
        self.check_length(tokenizer, texts, TOKENS)
        words = tokenizer(list(texts), padding="max_length", max_length=TOKENS, return_tensors="pt").to(self.device)
        states = encoder(words.input_ids, attention_mask=words.attention_mask).last_hidden_state
        return [Embedding(row[None].float()) for row in states]
