"""LoRA files of random matrices in several layouts, and what each weight gains by them, by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
BLOCKS = (*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
CONVOLUTIONS = ("conv1", "conv2", "time_emb_proj", "downsamplers.0.conv", "conv_in", "conv_out")
CLIP = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


@dataclass
class Lora:
    """What a file holds and what each weight of a part gains by it."""

    tensors: dict[str, torch.Tensor]
    gains: dict[str, torch.Tensor]  # by "part.layer.weight"

    def saved(self, path: Path) -> Path:
        save_file({name: tensor.contiguous() for name, tensor in self.tensors.items()}, path)
        return path

    def of(self, part: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(f"{part}."): gain for name, gain in self.gains.items() if name.startswith(f"{part}.")}


Naming = Callable[[str, str], tuple[str, str, str | None]]  # of part and layer: the names of A, B and alpha


def peft(part: str, layer: str) -> tuple[str, str, str | None]:
    """Diffusers' own today."""
    return f"{part}.{layer}.lora_A.weight", f"{part}.{layer}.lora_B.weight", None


def processors(part: str, layer: str) -> tuple[str, str, str | None]:
    """Diffusers' of old: the layers of an attention belong to its processor."""
    attention, _, last = layer.replace("to_out.0", "to_out").rpartition(".")
    stem = f"{part}.{attention}.processor.{last}_lora"
    return f"{stem}.down.weight", f"{stem}.up.weight", None


def kohya(part: str, layer: str) -> tuple[str, str, str | None]:
    """Of sd-scripts, with underscores for dots and an alpha for each layer."""
    short = {"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}[part]
    stem = f"{short}_{layer}".replace(".", "_")
    return f"{stem}.lora_down.weight", f"{stem}.lora_up.weight", f"{stem}.alpha"


def lora_of(
    parts: dict[str, tuple[Any, tuple[str, ...]]], naming: Naming, ranks: tuple[int, ...] = (3, 2), seed: int = 0
) -> Lora:
    """Random matrices for the layers of each part whose names end so; ranks and alphas take turns."""
    generator, lora = torch.Generator().manual_seed(seed), Lora({}, {})
    turns: Iterator[tuple[int, float]] = itertools.cycle(zip(itertools.cycle(ranks), (1.0, 4.0, 0.5, 2.0, 8.0)))
    for part, (module, ends) in parts.items():
        for layer, inner in module.named_modules():
            if not f".{layer}".endswith(tuple(f".{end}" for end in ends)):
                continue
            rank, alpha = next(turns)
            out, *rest = inner.weight.shape
            down = 0.1 * torch.randn(rank, *rest, generator=generator)
            up = 0.1 * torch.randn(out, rank, *([1] * (len(rest) - 1)), generator=generator)
            known = f"text_model.{layer}" if isinstance(module, CLIPTextModel) else layer  # in files, as of old
            name_a, name_b, name_alpha = naming(part, known)
            lora.tensors |= {name_a: down, name_b: up}
            if name_alpha:
                lora.tensors[name_alpha] = torch.tensor(alpha)
            share = alpha / rank if name_alpha else 1.0
            lora.gains[f"{part}.{layer}.weight"] = share * (up.flatten(1) @ down.flatten(1)).reshape(inner.weight.shape)
    assert lora.gains
    return lora


def unet_of(model: Path) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(model, subfolder="unet", low_cpu_mem_usage=False)


def text_of(model: Path) -> CLIPTextModel:
    return CLIPTextModel.from_pretrained(model, subfolder="text_encoder")


def assert_gained(module: Any, plain: Any, gains: dict[str, torch.Tensor], scale: float) -> None:
    """The same names, every weight with what it gains and no other changed."""
    found, before = module.state_dict(), plain.state_dict()
    assert found.keys() == before.keys() and gains.keys() <= found.keys()
    for name, weight in before.items():
        if name in gains:
            torch.testing.assert_close(found[name], weight + scale * gains[name], rtol=0, atol=1e-7)
            assert float(gains[name].abs().max()) > 1e-3
        else:
            assert torch.equal(found[name], weight)
