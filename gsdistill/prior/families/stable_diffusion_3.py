"""Rectified-flow transformers: Stable Diffusion 3 and 3.5 (arXiv 2403.03206)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from gsdistill.core.structs import Embedding
from gsdistill.models.declared import Feed
from gsdistill.prior.families.base import Pretrained
from gsdistill.prior.families.texts import load_reader, read_by_clip

__all__ = ["StableDiffusion3"]

T5_TOKENS = 256


class StableDiffusion3(Pretrained):
    """Flow prediction on the autoencoder's latents, with two CLIP encoders and, if the folder has it, T5."""

    NETWORK: ClassVar[str] = "transformer"
    NETWORK_CLASS: ClassVar[str] = "SD3Transformer2DModel"
    LORA: ClassVar[tuple[str, ...]] = ("transformer", "text_encoder", "text_encoder_2")
    HALF: ClassVar[torch.dtype] = torch.bfloat16
    # Its gradient is off by 0.3 % in float16, by 2.6 % in bfloat16; the pipelines ignore its force_upcast too.
    HALF_VAE: ClassVar[torch.dtype | None] = torch.float16
    FLOW: ClassVar[bool] = True
    LATENTS: ClassVar[str] = "hidden_states"
    FEED: ClassVar[Feed] = Feed(
        128,
        16,
        sized=True,
        widths={
            "joint_attention_dim": (("text_encoder_3", "d_model", 1),),
            "pooled_projection_dim": (("text_encoder", "projection_dim", 1), ("text_encoder_2", "projection_dim", 1)),
        },
    )

    def encode_texts(self, texts: Sequence[str]) -> list[Embedding]:
        """The last states but one of both CLIPs side by side, then the last of T5 or zeros; and both pooled texts.

        T5 reads 256 tokens, and CLIP the first tokens of a longer text; without T5 a text must fit into CLIP.
        """
        from transformers import CLIPTextModelWithProjection

        kind, cut = CLIPTextModelWithProjection, self._has_t5()
        answers = [read_by_clip(self, kind, last, texts, cut) for last in ("", "_2")]
        clip = torch.cat([answer.hidden_states[-2] for answer in answers], -1)
        pooled = torch.cat([answer.text_embeds for answer in answers], -1)
        if self._has_t5():
            t5 = self._read_by_t5(texts)
        else:
            t5 = clip.new_zeros(len(texts), T5_TOKENS, self._network.config.joint_attention_dim)
        tokens = torch.cat([pad(clip, (0, t5.shape[-1] - clip.shape[-1])), t5], 1)
        return [Embedding(row[None], whole[None]) for row, whole in zip(tokens, pooled, strict=True)]

    def _has_t5(self) -> bool:
        return (self.folder / "text_encoder_3").is_dir()

    def _read_by_t5(self, texts: Sequence[str]) -> Float[Tensor, "N L D"]:
        """T5's last hidden states; it reads the padding as if it were text, as in the pipeline."""
        from transformers import T5EncoderModel, T5Tokenizer

        tokenizer, encoder = load_reader((T5Tokenizer, T5EncoderModel), self.origin, "_3")
        self.check_length(tokenizer, texts, T5_TOKENS)
        ids = tokenizer(list(texts), padding="max_length", max_length=T5_TOKENS, return_tensors="pt").input_ids
        return encoder(ids.to(self.device)).last_hidden_state.float()

    def extras(self, latents: Tensor, text: Embedding, cameras: Tensor | None) -> dict[str, Any]:
        """The pooled text."""
        return {"pooled_projections": None if text.pooled is None else text.pooled.to(self.dtype)}
