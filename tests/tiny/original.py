"""The original names of a tiny model's tensors, with which checkpoints in one file are written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModelWithProjection

from tiny import sdxl

LAYERS = 1  # resnets of each level of the tiny U-Nets
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip


def unet_name(name: str, attended: set[str]) -> str:
    """Of a parameter of diffusers' U-Net; ``attended`` are the blocks with attention."""
    module, _, kind = name.rpartition(".")
    fixed = {
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
        "class_embedding.linear_1": "camera_embed.0", "class_embedding.linear_2": "camera_embed.2",
    }  # fmt: skip
    if module in fixed:
        return f"{fixed[module]}.{kind}"
    found = re.fullmatch(r"(down_blocks\.\d+|mid_block|up_blocks\.\d+)\.(\w+)\.(\d+)\.(.*)", name)
    assert found, name
    block, part, place, rest = found[1], found[2], int(found[3]), found[4]
    level = int(block.rpartition(".")[2]) if block != "mid_block" else 0
    if part == "resnets":
        inside, _, kind = rest.rpartition(".")
        rest = f"{RESNET[inside]}.{kind}"
    if block == "mid_block":
        return f"middle_block.{1 if part == 'attentions' else 2 * place}.{rest}"
    if part == "downsamplers":
        return f"input_blocks.{(level + 1) * (LAYERS + 1)}.0.op.{kind}"
    if part == "upsamplers":
        return f"output_blocks.{level * (LAYERS + 1) + LAYERS}.{2 if block in attended else 1}.conv.{kind}"
    column = int(part == "attentions")
    if block.startswith("down"):
        return f"input_blocks.{1 + level * (LAYERS + 1) + place}.{column}.{rest}"
    return f"output_blocks.{level * (LAYERS + 1) + place}.{column}.{rest}"


def unet_names(held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    attended = {name.partition(".attentions")[0] for name in held if ".attentions." in name}
    return {f"model.diffusion_model.{unet_name(name, attended)}": value for name, value in held.items()}


def vae_names(held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    levels = 1 + max(int(found[1]) for name in held if (found := re.search(r"up_blocks\.(\d+)", name)))
    rules = (
        (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
        (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
        (r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda found: f"up.{levels - 1 - int(found[1])}.block.{found[2]}"),
        (r"up_blocks\.(\d+)\.upsamplers\.0", lambda found: f"up.{levels - 1 - int(found[1])}.upsample"),
        (r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}"),
        (r"mid_block\.attentions\.0", "mid.attn_1"), (r"attn_1\.group_norm", "attn_1.norm"),
        (r"attn_1\.to_([qkv])", r"attn_1.\1"), (r"attn_1\.to_out\.0", "attn_1.proj_out"),
        ("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out"),
    )  # fmt: skip
    named = {}
    for name, value in held.items():
        convolution = re.search(r"attn.*(to_[qkv]|to_out\.0)\.weight", name)  # linear in diffusers, 1 x 1 there
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        named[f"first_stage_model.{name}"] = value[:, :, None, None] if convolution else value
    return named


def open_clip_names(held: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """CLIP with a projection, in OpenCLIP's names, with query, key and value in one matrix."""
    rules = (
        (r"text_model\.encoder\.layers\.", "transformer.resblocks."), (r"layer_norm(\d)", r"ln_\1"),
        (r"mlp\.fc1", "mlp.c_fc"), (r"mlp\.fc2", "mlp.c_proj"), (r"self_attn", "attn"),
        (r"text_model\.final_layer_norm", "ln_final"), (r"text_model\.embeddings\.token_embedding", "token_embedding"),
        (r"text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
        (r"text_projection\.weight", "text_projection"),
    )  # fmt: skip
    named = {}
    for name, value in held.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        named[prefix + name] = value.T.contiguous() if name == "text_projection" else value
    for name in [name for name in named if ".attn.q_proj." in name]:
        whole, kind = name.rpartition(".q_proj.")[0], name.rpartition(".")[2]
        rows = [named.pop(f"{whole}.{letter}_proj.{kind}") for letter in "qkv"]
        named[f"{whole}.in_proj_{kind}"] = torch.cat(rows)
    return named


def weights(folder: Path, part: str) -> dict[str, Tensor]:
    return load_file(next((folder / part).glob("*.safetensors")))


def clip_names(folder: Path, prefix: str) -> dict[str, Tensor]:
    held = weights(folder, "text_encoder")
    return {f"{prefix}text_model.{name.removeprefix('text_model.')}": value for name, value in held.items()}


def original(folder: Path) -> dict[str, Tensor]:
    """A whole Stable Diffusion checkpoint, with tensors that belong to no part."""
    return {
        **unet_names(weights(folder, "unet")),
        **vae_names(weights(folder, "vae")),
        **clip_names(folder, "cond_stage_model.transformer."),
        "betas": torch.zeros(1000),
    }


def build_xl(place: Path) -> tuple[Path, dict[str, Tensor]]:
    """A folder and its checkpoint; the second encoder has ten layers, by which diffusers tells an XL checkpoint."""
    folder = sdxl.build(place)
    config = CLIPTextModelWithProjection.from_pretrained(folder, subfolder="text_encoder_2").config
    config.num_hidden_layers = 10
    torch.manual_seed(5)
    CLIPTextModelWithProjection(config).save_pretrained(folder / "text_encoder_2")
    return folder, {
        **unet_names(weights(folder, "unet")),
        **vae_names(weights(folder, "vae")),
        **clip_names(folder, "conditioner.embedders.0.transformer."),
        **open_clip_names(weights(folder, "text_encoder_2"), "conditioner.embedders.1.model."),
    }
