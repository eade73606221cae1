"""Sana (arXiv 2410.10629): a linear-attention flow transformer on latents of 1/32 the size, conditioned on Gemma 2.

Gemma reads a prompt, also one with a direction of view, after the paper's "complex human instruction", and a negative
or empty text without it. Both are as in diffusers' pipeline.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from gsdistill.core.structs import Embedding
from gsdistill.models.declared import Feed
from gsdistill.prior.families.base import Origin, Pretrained
from gsdistill.prior.families.texts import load_reader

__all__ = ["Sana"]

TOKENS = 300  # of a text, that the transformer reads


class Sana(Pretrained):
    """Flow prediction on the latents of a deep-compression autoencoder."""

    NETWORK: ClassVar[str] = "transformer"
    NETWORK_CLASS: ClassVar[str] = "SanaTransformer2DModel"
    LORA: ClassVar[tuple[str, ...]] = ("transformer",)
    HALF: ClassVar[torch.dtype] = torch.bfloat16  # the autoencoder, like Gemma, overflows in float16
    FLOW: ClassVar[bool] = True
    LATENTS: ClassVar[str] = "hidden_states"
    FEED: ClassVar[Feed] = Feed(32, 32, sized=True, widths={"caption_channels": (("text_encoder", "hidden_size", 1),)})

    def __init__(self, origin: Origin) -> None:
        super().__init__(origin)
        self._times = self._times * self._network.config.timestep_scale

    def prepared(self, text: str, negative: bool) -> str:
        """The text in lower case, after the instruction unless it is ``negative``."""
        text = text.lower().strip()
        return text if negative else _instruction() + text

    def encode_texts(self, texts: Sequence[str]) -> list[Embedding]:
        """Gemma's last hidden states, and a mask of those that are text: 300 of them, the first and the last 299.

        So Gemma reads the instruction, but the transformer gets only its first token and its end.
        """
        from transformers import Gemma2Model, GemmaTokenizer

        tokenizer, encoder = load_reader((GemmaTokenizer, Gemma2Model), self.origin)
        tokenizer.padding_side = "right"
        instruction, embeddings = _instruction(), []
        places = [0, *range(1 - TOKENS, 0)]
        for text in texts:
            self.check_length(tokenizer, [text.removeprefix(instruction)], TOKENS - 1)
            more = len(tokenizer(instruction).input_ids) - 2 if text.startswith(instruction) else 0
            words = tokenizer(text, padding="max_length", max_length=TOKENS + more, return_tensors="pt").to(self.device)
            states = encoder(words.input_ids, attention_mask=words.attention_mask).last_hidden_state
            embeddings.append(Embedding(states[:, places].float(), mask=words.attention_mask[:, places].bool()))
        return embeddings

    def extras(self, latents: Tensor, text: Embedding, cameras: Tensor | None) -> dict[str, Any]:
        """The mask of the tokens."""
        return {"encoder_attention_mask": text.mask}


def _instruction() -> str:
    """The instruction that diffusers' pipeline puts before a prompt."""
    from diffusers import SanaPipeline

    return "\n".join(inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default)
