"""MVDream, 16 px, latents of 8 x 8: three levels, of which the last has no attention, as in the release."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from tiny.stable_diffusion import text_encoder, vae
from tiny.words import tokenizer

UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 16,
    "attention_head_dim": (2, 4, 4),
    "norm_num_groups": 4,
    "use_linear_projection": True,
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 16,
}


def build(path: Path) -> Path:
    """A whole folder."""
    torch.manual_seed(0)
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    parts = {"unet": UNet2DConditionModel(**UNET), "vae": vae(), "text_encoder": text_encoder(), "scheduler": scheduler}
    for name, part in {**parts, "tokenizer": tokenizer()}.items():
        part.save_pretrained(path / name)
    (path / "model_index.json").write_text(json.dumps({"_class_name": "MVDreamPipeline"}))
    return path
