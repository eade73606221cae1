"""Sana, 32 px, latents of 8 x 8 in 4 channels."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel, SchedulerMixin
from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer


def gemma_tokenizer() -> GemmaTokenizer:
    """Every printable character is a token, as are the first letters of some words with their space."""
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\n", "▁", *map(chr, range(33, 127))]
    merges = [("▁", letter) for letter in "abcdeprst"]
    vocab = {piece: i for i, piece in enumerate([*pieces, *map("".join, merges)])}
    return GemmaTokenizer(vocab=vocab, merges=merges, add_bos_token=True, padding_side="left")


def gemma() -> Gemma2Model:
    """Two layers, of which one attends to a window."""
    return Gemma2Model(
        Gemma2Config(
            vocab_size=128, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, query_pre_attn_scalar=8, sliding_window=512,
        )
    )  # fmt: skip


def vae() -> AutoencoderDC:
    """Two halvings."""
    return AutoencoderDC(
        latent_channels=4, attention_head_dim=2, encoder_block_types=("ResBlock", "EfficientViTBlock", "ResBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock", "ResBlock"), encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8), encoder_layers_per_block=(1, 1, 1), decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (5,), ()), decoder_qkv_multiscales=((), (5,), ()),
        downsample_block_type="conv", scaling_factor=0.41407,
    )  # fmt: skip


def published_scheduler() -> DPMSolverMultistepScheduler:
    """The one of Sana's folders."""
    return DPMSolverMultistepScheduler(use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction")


def build(
    path: Path, scheduler: SchedulerMixin | None = None, out_channels: int = 4, timestep_scale: float = 1.0
) -> Path:
    """A whole folder; with twice the output channels the second half is a variance."""
    torch.manual_seed(0)
    transformer = SanaTransformer2DModel(
        in_channels=4, out_channels=out_channels, num_attention_heads=2, attention_head_dim=8, num_layers=2,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=24,
        sample_size=8, patch_size=1, timestep_scale=timestep_scale,
    )  # fmt: skip
    SanaPipeline(
        tokenizer=gemma_tokenizer(), text_encoder=gemma(), vae=vae(), transformer=transformer,
        scheduler=scheduler or published_scheduler(),
    ).save_pretrained(path)  # fmt: skip
    return path
