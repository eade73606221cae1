"""Names of LoRA files: their parts, layers and matrices; the published names of the networks find the right weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import SD3Transformer2DModel
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from safetensors.torch import save_file
from tiny import sd3, sdxl
from tiny.lora import assert_gained, unet_of
from torch import nn

from gsdistill.models.lora_files import fuse
from gsdistill.models.lora_names import Home, Place, homes, is_foreign, key_of, place_of

DEEP = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        (f"unet.{DEEP}.to_q.lora_A.weight", Place("unet", f"{DEEP}.to_q", "A")),
        (f"unet.{DEEP}.to_q.lora_B.my_style.weight", Place("unet", f"{DEEP}.to_q", "B")),
        (f"unet.{DEEP}.to_q.lora.down.weight", Place("unet", f"{DEEP}.to_q", "A")),
        (f"unet.{DEEP}.processor.to_out_lora.up.weight", Place("unet", f"{DEEP}.to_out", "B")),
        (f"{DEEP}.to_q.lora_A.weight", Place("unet", f"{DEEP}.to_q", "A")),
        (f"base_model.model.{DEEP}.to_q.lora_A.weight", Place("unet", f"{DEEP}.to_q", "A")),
        (f"base_model.model.unet.{DEEP}.to_q.lora_B.default.weight", Place("unet", f"{DEEP}.to_q", "B")),
        (f"diffusion_model.{DEEP}.to_q.lora_up.weight", Place("unet", f"{DEEP}.to_q", "B")),
        ("transformer.proj_out.lora_B.weight", Place("transformer", "proj_out", "B")),
        ("lora_transformer_proj_out.lora_up.weight", Place("unet", "proj_out", "B")),
        ("lora_unet_conv_in.lora_down.weight", Place("unet", "conv_in", "A")),
        ("lora_unet_conv_in.alpha", Place("unet", "conv_in", "alpha")),
        ("lora_te_text_model_x_fc1.lora_up.weight", Place("text_encoder", "text_model_x_fc1", "B")),
        ("lora_te1_x_fc1.alpha", Place("text_encoder", "x_fc1", "alpha")),
        ("lora_te2_x_fc1.alpha", Place("text_encoder_2", "x_fc1", "alpha")),
        ("text_encoder_2.x.fc1.lora_linear_layer.up.weight", Place("text_encoder_2", "x.fc1", "B")),
        ("base_model.model.text_model.x.fc1.lora_A.weight", Place("text_encoder", "x.fc1", "A")),
        ("text_encoders.clip_g.transformer.text_model.x.lora_up.weight", Place("text_encoder_2", "text_model.x", "B")),
        ("lora_unet_conv_in.lora_mid.weight", None),
        ("lora_unet_conv_in.hada_w1_a", None),
        ("unet.conv_in.lora_B.bias", None),
        ("unet.conv_in.lora_magnitude_vector", None),
        ("bundle_emb.cat.clip_l", None),
    ],
)
def test_a_name_says_part_layer_and_matrix(name, place):
    assert place_of(name, "unet") == place


@pytest.mark.parametrize(
    ("name", "foreign"),
    [
        ("bundle_emb.my lora cat.clip_l", True),
        ("emb_params", True),
        ("__meta__", True),
        ("lora_unet_conv_norm_out.diff", False),
        ("conv_in.diff_b", False),
        ("base_model.model.conv_in.bias", False),
        ("unet.time_embedding.weight", False),
        ("diffusion_model.out.0.weight", False),
    ],
)
def test_only_what_names_no_layer_is_foreign(name, foreign):
    assert is_foreign(name, nn.ModuleDict({"conv_in": nn.Conv2d(1, 1, 1)})) is foreign


@pytest.mark.parametrize(
    "name",
    [
        "encoder.layers.0.self_attn.out_proj",
        "text_model.encoder.layers.0.self_attn.out_proj",
        "text_model_encoder_layers_0_self_attn_out_proj",
        "text_model.encoder.layers.0.self_attn.to_out",
    ],
)
@pytest.mark.parametrize("levels", ["", "text_model."])
def test_a_text_encoder_is_found_with_and_without_its_upper_level(name, levels):
    inner: nn.Module = nn.Linear(1, 1)
    path = f"{levels}encoder.layers.0.self_attn.out_proj"
    for word in reversed(path.split(".")):
        inner = nn.ModuleDict({word: inner})
    assert homes(inner)[key_of(name)] == Home((path,))


@pytest.mark.parametrize("naming", ["dots", "underscores"])
def test_the_published_names_of_a_unet(naming, tmp_path_factory):
    """SDXL's with one layer in a block, so that two numbers make a stage of the way down, and two of the way up."""
    unet = unet_of(sdxl.build(tmp_path_factory.mktemp("sdxl")))
    published = {
        "input_blocks.0.0": "conv_in",
        "out.2": "conv_out",
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "label_emb.0.0": "add_embedding.linear_1",
        "label_emb.0.2": "add_embedding.linear_2",
        "input_blocks.1.0.in_layers.2": "down_blocks.0.resnets.0.conv1",
        "input_blocks.1.0.emb_layers.1": "down_blocks.0.resnets.0.time_emb_proj",
        "input_blocks.2.0.op": "down_blocks.0.downsamplers.0.conv",
        "input_blocks.3.0.skip_connection": "down_blocks.1.resnets.0.conv_shortcut",
        "input_blocks.3.1.proj_in": "down_blocks.1.attentions.0.proj_in",
        "middle_block.0.out_layers.3": "mid_block.resnets.0.conv2",
        "middle_block.1.transformer_blocks.0.ff.net.2": "mid_block.attentions.0.transformer_blocks.0.ff.net.2",
        "middle_block.2.in_layers.2": "mid_block.resnets.1.conv1",
        "output_blocks.1.1.transformer_blocks.0.attn2.to_out.0": (
            "up_blocks.0.attentions.1.transformer_blocks.0.attn2.to_out.0"
        ),
        "output_blocks.1.2.conv": "up_blocks.0.upsamplers.0.conv",
        "output_blocks.2.0.skip_connection": "up_blocks.1.resnets.0.conv_shortcut",
        "output_blocks.3.0.out_layers.3": "up_blocks.1.resnets.1.conv2",
    }
    known = homes(unet)
    for theirs, ours in published.items():
        assert unet.get_submodule(ours) is not None
        assert known[key_of(theirs if naming == "dots" else theirs.replace(".", "_"))] == Home((ours,))
    apart = {path for home in known.values() for path in home.paths}
    named = [key for key in known if key.startswith(("input_", "middle_", "output_", "out_", "time_embed_", "label_"))]
    assert apart == {path for key in named for path in known[key].paths}  # each layer has such a name


def published_sd3() -> dict[str, tuple[int, ...]]:
    """The layers of tests/tiny's Stable Diffusion 3 under their published names, with the shapes of their weights."""
    layers: dict[str, tuple[int, ...]] = {
        "x_embedder.proj": (16, 16, 2, 2),
        "t_embedder.mlp.0": (16, 256),
        "t_embedder.mlp.2": (16, 16),
        "y_embedder.mlp.0": (16, 32),
        "y_embedder.mlp.2": (16, 16),
        "context_embedder": (16, 48),
        "final_layer.linear": (64, 16),
        "final_layer.adaLN_modulation.1": (32, 16),
    }
    for block, side, chunks in ((0, "x", 9), (0, "context", 6), (1, "x", 6), (1, "context", 2)):
        stem = f"joint_blocks.{block}.{side}_block"
        layers |= {f"{stem}.attn.qkv": (48, 16), f"{stem}.adaLN_modulation.1": (16 * chunks, 16)}
        if chunks == 9:
            layers |= {f"{stem}.attn2.qkv": (48, 16), f"{stem}.attn2.proj": (16, 16)}
        if chunks > 2:  # the last block has no use for what it would make of the text
            layers |= {f"{stem}.attn.proj": (16, 16), f"{stem}.mlp.fc1": (64, 16), f"{stem}.mlp.fc2": (16, 64)}
    return layers


def converted(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights under diffusers' names, by its own reader of published checkpoints."""
    held = {f"{layer}.weight": weight for layer, weight in weights.items()}
    held |= {f"{layer}.bias": torch.zeros(len(weight)) for layer, weight in weights.items()}
    found = convert_sd3_transformer_checkpoint_to_diffusers(held | {"pos_embed": torch.zeros(1)})
    return {name: weight for name, weight in found.items() if name.endswith(".weight")}


@pytest.mark.parametrize("naming", ["lora_unet_", "diffusion_model."])
def test_the_published_names_of_stable_diffusion_3(naming, tmp_path):
    """Matrices of queries, keys and values in one, halves that diffusers swaps: the gain is its reader's of B A."""
    plain = transformer(sd3.build(tmp_path / "sd3"))
    generator, tensors, gains = torch.Generator().manual_seed(0), {}, {}
    for layer, (rows, *rest) in published_sd3().items():
        stem = f"{naming}{layer}" if naming.endswith(".") else f"{naming}{layer.replace('.', '_')}"
        down = 0.1 * torch.randn(3, *rest, generator=generator)
        up = 0.1 * torch.randn(rows, 3, *([1] * (len(rest) - 1)), generator=generator)
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        gains[layer] = (up.flatten(1) @ down.flatten(1)).reshape(rows, *rest)
    save_file(tensors, tmp_path / "x.safetensors")
    network = transformer(tmp_path / "sd3")
    fuse([tmp_path / "x.safetensors"], 0.7, "transformer", network, ("transformer", "text_encoder"))
    expected = converted(gains)
    linear = [name for name, inner in plain.named_modules() if isinstance(inner, (nn.Linear, nn.Conv2d))]
    assert expected.keys() == {f"{name}.weight" for name in linear}
    assert_gained(network, plain, expected, 0.7)


def transformer(folder: Path) -> SD3Transformer2DModel:
    return SD3Transformer2DModel.from_pretrained(folder, subfolder="transformer", low_cpu_mem_usage=False)
