"""DeepFloyd IF, 16 px, with the blocks of stage I: simple cross-attention with added keys, resnets that resample."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDPMScheduler, IFPipeline, UNet2DConditionModel
from transformers import T5Config, T5EncoderModel, T5Tokenizer


def t5_tokenizer() -> T5Tokenizer:
    """Every letter is a token, as are the comma and a few endings; the space is a part of the next one."""
    letters = [*map(chr, range(97, 123)), ",", "▁"]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(letter, -3.0) for letter in letters]
    pieces += [(word, -2.0) for word in ("▁a", "▁red", "▁blue", "us", "ew")]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def t5(width: int = 32) -> T5EncoderModel:
    """Two layers of T5 1.1, for that tokenizer."""
    return T5EncoderModel(
        T5Config(
            vocab_size=40, d_model=width, d_kv=8, d_ff=2 * width, num_layers=2, num_heads=4,
            feed_forward_proj="gated-gelu", dropout_rate=0.0, tie_word_embeddings=False,
        )
    )  # fmt: skip


def build(path: Path) -> Path:
    """A whole folder."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=3, out_channels=6, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        cross_attention_dim=16, attention_head_dim=4, norm_num_groups=4, act_fn="gelu",
        encoder_hid_dim=32, encoder_hid_dim_type="text_proj", addition_embed_type="text",
        addition_embed_type_num_heads=4, resnet_time_scale_shift="scale_shift", time_embedding_act_fn="gelu",
        mid_block_scale_factor=1.41421356237,
    )  # fmt: skip
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True, sample_max_value=1.5,
        dynamic_thresholding_ratio=0.95,
    )  # fmt: skip
    IFPipeline(
        tokenizer=t5_tokenizer(), text_encoder=t5(), unet=unet, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, watermarker=None, requires_safety_checker=False,
    ).save_pretrained(path)  # fmt: skip
    return path
