"""Stable Diffusion 3.5, 16 px, latents of 8 x 8 in 16 channels; one block with dual attention, as in 3.5 medium."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from tiny.deepfloyd import t5, t5_tokenizer
from tiny.words import LENGTH, tokenizer

WIDTH = 16  # of each CLIP


def clip() -> CLIPTextModelWithProjection:
    """CLIP of two layers, for the tokenizer of words.py."""
    words = tokenizer()
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(words), hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=LENGTH, projection_dim=WIDTH,
            bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
        )
    )  # fmt: skip


def vae() -> AutoencoderKL:
    """One halving; scale and shift of the published one."""
    return AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, latent_channels=16, scaling_factor=1.5305,
        shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False, force_upcast=True,
    )  # fmt: skip


def build(path: Path, with_t5: bool = True) -> Path:
    """A whole folder."""
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=16, out_channels=16, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=3 * WIDTH, caption_projection_dim=16,
        pooled_projection_dim=2 * WIDTH, pos_embed_max_size=12, dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip
    StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae(),
        text_encoder=clip(), tokenizer=tokenizer(), text_encoder_2=clip(), tokenizer_2=tokenizer(),
        text_encoder_3=t5(3 * WIDTH) if with_t5 else None, tokenizer_3=t5_tokenizer() if with_t5 else None,
    ).save_pretrained(path)  # fmt: skip
    return path
