"""The names of layers in LoRA files of diffusers, peft, sd-scripts, OneTrainer and ComfyUI.

A tensor's name says the part of the model, the layer in it, and which matrix it is. Layers are looked up from the
module's side, with dots as underscores: under its own names and those of the network as it was published. Both are
written with dots by some programs and with underscores by others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["PEFT", "Home", "Place", "homes", "is_foreign", "key_of", "place_of"]

PEFT = "base_model.model."  # before each name that peft's own save_pretrained writes

MATRIX = re.compile(
    r"(?P<layer>.+?)(?:\.lora_(?P<peft>[AB])(?:\.[^.]+)?\.weight"  # with or without an adapter's name
    r"|[._]lora(?:_linear_layer)?[._](?P<way>down|up)\.weight|\.(?P<alpha>alpha))"
)

# How a layer's name begins, and the part that it is of; none: the network. A name that begins otherwise is of it too.
PARTS = {
    "lora_unet_": None,
    "lora_transformer_": None,
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
    "unet.": "unet",
    "transformer.": "transformer",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "text_encoder_3.": "text_encoder_3",
    "diffusion_model.": None,
    "model.diffusion_model.": None,
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.clip_h.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
    "text_encoders.t5xxl.transformer.": "text_encoder_3",
    "text_model.": "text_encoder",
}

# Diffusers' names of a U-Net, and those of the published one.
UNET = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
BLOCK = re.compile(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")

# The published names of Stable Diffusion 3, and diffusers'.
SD3 = {
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
}
SD3_BLOCK = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block.attn.proj": ("attn.to_out.0",),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "x_block.attn2.proj": ("attn2.to_out.0",),
    "x_block.mlp.fc1": ("ff.net.0.proj",),
    "x_block.mlp.fc2": ("ff.net.2",),
    "x_block.adaLN_modulation.1": ("norm1.linear",),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "context_block.attn.proj": ("attn.to_add_out",),
    "context_block.mlp.fc1": ("ff_context.net.0.proj",),
    "context_block.mlp.fc2": ("ff_context.net.2",),
    "context_block.adaLN_modulation.1": ("norm1_context.linear",),
}


@dataclass(frozen=True)
class Place:
    """What the name of a tensor says: which matrix it is (A, B or alpha), of which layer in which part."""

    part: str
    layer: str
    matrix: str


@dataclass(frozen=True)
class Home:
    """The layers of a module that one layer of a file means: its rows are theirs, one after another."""

    paths: tuple[str, ...]
    swapped: bool = False  # whether the second half of its rows comes first in the module


def place_of(name: str, network: str) -> Place | None:
    """The place of the tensor ``name`` in a model whose network is the part ``network``; None: it is no matrix."""
    match = MATRIX.fullmatch(name)
    if match is None:
        return None
    layer = match["layer"].removeprefix(PEFT).replace(".processor.", ".")
    begin = next((begin for begin in PARTS if layer.startswith(begin)), "")
    matrix = match["peft"] or match["alpha"] or {"down": "A", "up": "B"}[match["way"]]
    return Place(PARTS.get(begin) or network, layer.removeprefix(begin), matrix)


def is_foreign(name: str, module: Any) -> bool:
    """Whether a tensor that is no LoRA matrix belongs to no layer of the network ``module`` or another part.

    Tensors of another kind of adapter, biases and whole weights do belong to one.
    """
    if name.startswith("bundle_emb."):  # OneTrainer's embeddings, whose names people choose
        return True
    inside = name.removeprefix(PEFT).partition(".")[0] in dict(module.named_children())
    return not ("lora" in name or name.startswith((PEFT, *PARTS)) or inside)


def key_of(layer: str) -> str:
    """The name of a layer as :func:`homes` has it, from any of the ways in which files write it."""
    flat = layer.replace(".", "_").removeprefix("text_model_")  # CLIP of transformers 5 has or has not this level
    flat = re.sub(r"_self_attn_to_(q|k|v|out)$", r"_self_attn_\1_proj", flat)
    return re.sub(r"_to_out$", "_to_out_0", flat)


def homes(module: Any) -> dict[str, Home]:
    """The layers of a network or text encoder that a LoRA can be of, by :func:`key_of` each of their names."""
    from torch import nn

    paths = [path for path, inner in module.named_modules() if isinstance(inner, (nn.Linear, nn.Conv2d))]
    depth = getattr(getattr(module, "config", None), "layers_per_block", None)
    published = dict(_published_sd3(paths)) if "transformer_blocks.0.attn.add_q_proj" in paths else {}
    if isinstance(depth, int):
        published |= {key_of(name): Home((path,)) for path in paths for name in _published_unet(path, depth)}
    return published | {key_of(path): Home((path,)) for path in paths}


def _published_unet(path: str, depth: int) -> list[str]:
    """The names in the published U-Net of diffusers' layer ``path``, with ``depth`` layers in a block; at most two."""
    if path in UNET:
        return [UNET[path]]
    match = BLOCK.fullmatch(path)
    if match is None:
        return []
    side, kind, place, rest = match[1], match[3], int(match[4]), match[5]
    column, first = int(kind == "attentions"), int(match[2] or 0) * (depth + 1)
    rest = RESNET.get(rest, rest) if kind == "resnets" else rest
    if side == "mid":
        return [f"middle_block.{2 * place + column}.{rest}"]
    if kind == "downsamplers":
        return [f"input_blocks.{first + depth + 1}.0.op"]
    if kind == "upsamplers":  # behind the attention, if there is one
        return [f"output_blocks.{first + depth}.{column}.conv" for column in (1, 2)]
    return [f"input_blocks.{first + 1 + place}.{column}.{rest}" if side == "down" else
            f"output_blocks.{first + place}.{column}.{rest}"]  # fmt: skip


def _published_sd3(paths: list[str]) -> Iterator[tuple[str, Home]]:
    """The layers of the published SD3 by key. It has shift and scale of the last norms in the other order."""
    for name, path in SD3.items():
        yield key_of(name), Home((path,))
    yield key_of("final_layer.adaLN_modulation.1"), Home(("norm_out.linear",), swapped=True)
    last = max(int(path.split(".")[1]) for path in paths if path.startswith("transformer_blocks."))
    for block in range(last + 1):
        for name, ours in SD3_BLOCK.items():
            swapped = block == last and name == "context_block.adaLN_modulation.1"
            home = Home(tuple(f"transformer_blocks.{block}.{path}" for path in ours), swapped)
            if set(home.paths) <= set(paths):
                yield key_of(f"joint_blocks.{block}.{name}"), home
