"""Stable Diffusion XL, 16 px, latents of 8 x 8."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextModelWithProjection

from tiny.stable_diffusion import text_encoder, vae
from tiny.words import tokenizer

WIDTHS = (16, 24)  # of the text encoders


def build(path: Path, prediction_type: str = "epsilon", zeros: bool = True) -> Path:
    """A whole folder; ``zeros``: an empty negative prompt is zeros."""
    torch.manual_seed(0)
    first = text_encoder(WIDTHS[0])
    second = CLIPTextModelWithProjection(text_encoder(WIDTHS[1]).config)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=sum(WIDTHS), attention_head_dim=(1, 2), norm_num_groups=4, use_linear_projection=True,
        transformer_layers_per_block=(1, 2), addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTHS[1],
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type,
        clip_sample=False, steps_offset=1,
    )  # fmt: skip
    StableDiffusionXLPipeline(
        vae=vae(), text_encoder=first, text_encoder_2=second, tokenizer=tokenizer(), tokenizer_2=tokenizer(),
        unet=unet, scheduler=scheduler, force_zeros_for_empty_prompt=zeros, add_watermarker=False,
    ).save_pretrained(path)  # fmt: skip
    return path
