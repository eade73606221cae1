"""The U-Net of a world's prior: one fixed kind of diffusers' UNet2DConditionModel, written out for a CPU.

Weights are read from the diffusers folder, and results equal those of diffusers up to rounding. The computation
differs: activations stay channels-last, so that attention needs no copy of them; the projections of all resnets from
the time embedding are one product, so are those of all cross-attentions from the text and those of each self-attention;
the residual sum is float32, while convolutions and products in its branches can be bfloat16. Diffusers is not imported,
which would take longer than the first fifty steps of a run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import (
    conv2d,
    gelu,
    group_norm,
    interpolate,
    layer_norm,
    linear,
    scaled_dot_product_attention,
    silu,
)

from gsdistill.core.errors import BadFile
from gsdistill.core.failing import failing_as
from gsdistill.disk.read import read_json
from gsdistill.prior.families.small.rows import by_rows

__all__ = ["SmallUNet", "read_unet_config"]

LARGEST = 1 << 24  # numbers in an input
# The values that the config must have. They are diffusers' defaults too, so that a field may be missing.
FIXED: dict[str, Any] = {
    "act_fn": "silu", "addition_embed_type": None, "attention_type": "default", "center_input_sample": False,
    "class_embeddings_concat": False, "conv_in_kernel": 3, "conv_out_kernel": 3, "cross_attention_norm": None,
    "downsample_padding": 1, "dual_cross_attention": False, "encoder_hid_dim": None, "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True, "freq_shift": 0, "mid_block_only_cross_attention": None, "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn", "num_class_embeds": None, "only_cross_attention": False,
    "resnet_out_scale_factor": 1.0, "resnet_skip_time_act": False, "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None, "time_embedding_act_fn": None, "time_embedding_dim": None,
    "time_embedding_type": "positional", "timestep_post_act": None, "transformer_layers_per_block": 1,
    "use_linear_projection": False,
}  # fmt: skip
# The values that it must have where diffusers' defaults differ.
NAMED: dict[str, Any] = {"class_embed_type": "projection", "resnet_time_scale_shift": "scale_shift"}
BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
# Float32 in any precision. With the ends and shortcuts of the residual sum in bfloat16 the error of eps is three times
# as large (0.0047, not 0.0015), and guidance at t = 950, a fiftieth of eps, is off by 14 degrees instead of 5.
PRECISE = ("norm", "conv_in", "conv_out", "conv_shortcut")
ATTENTION_EPS = 1e-6  # of the group norm before attention; it is in no config
SELF, CROSS, FEED = "transformer_blocks.0.attn1", "transformer_blocks.0.attn2", "transformer_blocks.0.ff.net"


class Answer(NamedTuple):
    """The network's output, under diffusers' name for it."""

    sample: Float[Tensor, "B C h w"]


class SmallUNet:
    """A frozen network; ``config`` has the fields of its config.json."""

    def __init__(self, folder: Path, weights: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> None:
        """``folder`` has config.json; ``dtype`` is that of convolutions and products, float32 or bfloat16.

        Raises:
            BadFile: the config is of another kind of network, or a weight is missing, does not fit or is not finite.
        """
        self.config, self._dtype = SimpleNamespace(**read_unet_config(folder)), dtype
        self._weights = {name: self._placed(name, value.to(device)) for name, value in weights.items()}
        self._resnets = sorted(name[: -len(".conv1.weight")] for name in weights if name.endswith(".conv1.weight"))
        self._crossings = sorted(name[: -len(".to_k.weight")] for name in weights if name.endswith("attn2.to_k.weight"))
        with failing_as(BadFile, f"{folder}: its weights and its config.json are not of one network"):
            heads = getattr(self.config, "num_attention_heads", None) or self.config.attention_head_dim  # as diffusers
            self._heads = list(heads) if isinstance(heads, list) else [heads] * len(self.config.down_block_types)
            self._join()
            with torch.no_grad():
                self._try(device)

    def __call__(
        self,
        sample: Float[Tensor, "B C h w"],
        timestep: Int[Tensor, "B"],
        encoder_hidden_states: Float[Tensor, "B L D"],
        class_labels: Float[Tensor, "B F"],
    ) -> Answer:
        """The prediction in float32. The arguments are named as diffusers': latents, timesteps, text and camera."""
        return Answer(by_rows(self._answer, sample, timestep, encoder_hidden_states, class_labels))

    def _answer(self, sample: Tensor, timestep: Tensor, text: Tensor, camera: Tensor) -> Tensor:
        shifts, memories = self._shifts(timestep, camera), self._memories(text)
        x = self._conv("conv_in", sample.contiguous(memory_format=torch.channels_last))
        skips, last = [x], len(self._heads) - 1
        for level, kind in enumerate(self.config.down_block_types):
            block = f"down_blocks.{level}"
            for i in range(self.config.layers_per_block):
                x = self._resnet(f"{block}.resnets.{i}", x, shifts)
                if kind.startswith("Cross"):
                    x = self._transformer(f"{block}.attentions.{i}", x, memories, self._heads[level])
                skips.append(x)
            if level < last:
                x = self._conv(f"{block}.downsamplers.0.conv", x, stride=2)
                skips.append(x)
        x = self._resnet("mid_block.resnets.0", x, shifts)
        x = self._transformer("mid_block.attentions.0", x, memories, self._heads[last])
        x = self._resnet("mid_block.resnets.1", x, shifts)
        for level, kind in enumerate(self.config.up_block_types):
            block = f"up_blocks.{level}"
            for i in range(self.config.layers_per_block + 1):
                x = self._resnet(f"{block}.resnets.{i}", torch.cat([x, skips.pop()], 1), shifts)
                if kind.startswith("Cross"):
                    x = self._transformer(f"{block}.attentions.{i}", x, memories, self._heads[last - level])
            if level < last:
                x = self._conv(f"{block}.upsamplers.0.conv", interpolate(x, scale_factor=2.0))
        x = silu(self._group_norm("conv_norm_out", x, self.config.norm_eps))
        return self._conv("conv_out", x).float()

    def _try(self, device: torch.device) -> None:
        """Compute one output, in which every weight takes part. Raises ValueError if sizes or numbers are wrong."""
        size, c = self.config.sample_size, self.config
        features = c.projection_class_embeddings_input_dim
        if max(c.in_channels * size * size, c.cross_attention_dim, features) > LARGEST:
            raise ValueError("its sizes are beyond any picture")
        shapes = (1, c.in_channels, size, size), (1, 1, c.cross_attention_dim), (1, features)
        latents, text, cameras = (torch.zeros(shape, device=device) for shape in shapes)
        answer = self(latents, torch.zeros(1, dtype=torch.long, device=device), text, cameras)
        if not answer.sample.isfinite().all():
            raise ValueError("its answer is not finite")

    def _shifts(self, timesteps: Tensor, cameras: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """For every resnet, from time and camera: 1 + scale, and the shift, of its second norm."""
        half = self.config.block_out_channels[0] // 2
        rates = torch.exp(-math.log(10_000) / half * torch.arange(half, device=timesteps.device))
        angles = timesteps[:, None].float() * rates
        time = self._embedded("time_embedding", torch.cat([angles.cos(), angles.sin()], 1))
        both = time + self._embedded("class_embedding", cameras)
        joined = self._linear("shifts", silu(both)).float()[:, :, None, None]
        shifts, first = {}, 0
        for name in self._resnets:
            width = len(self._weights[f"{name}.norm2.weight"])
            scale, shift = joined[:, first : first + 2 * width].chunk(2, 1)
            shifts[name], first = (1.0 + scale, shift), first + 2 * width
        return shifts

    def _memories(self, text: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """For every cross-attention, the keys and values of the text."""
        joined, memories, first = self._linear("memories", text), {}, 0
        for name in self._crossings:
            width = len(self._weights[f"{name}.to_q.weight"])
            key, value = joined[..., first : first + 2 * width].chunk(2, -1)
            memories[name], first = (key, value), first + 2 * width
        return memories

    def _resnet(self, name: str, x: Tensor, shifts: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
        factor, shift = shifts[name]
        eps = self.config.norm_eps
        h = self._conv(f"{name}.conv1", silu(self._group_norm(f"{name}.norm1", x, eps)))
        h = silu(torch.addcmul(shift, self._group_norm(f"{name}.norm2", h, eps), factor))
        h = self._conv(f"{name}.conv2", h)
        if f"{name}.conv_shortcut.weight" in self._weights:
            x = self._conv(f"{name}.conv_shortcut", x)
        return x + h

    def _transformer(self, name: str, x: Tensor, memories: Mapping[str, tuple[Tensor, Tensor]], heads: int) -> Tensor:
        B, C, H, W = x.shape
        h = self._conv(f"{name}.proj_in", self._group_norm(f"{name}.norm", x, ATTENTION_EPS))
        h = h.permute(0, 2, 3, 1).reshape(B, H * W, C)  # a view: it is channels-last already
        query, key, value = self._linear(f"{name}.{SELF}.joined", self._layer_norm(name, 1, h)).chunk(3, -1)
        h = h + self._linear(f"{name}.{SELF}.to_out.0", attend(query, key, value, heads))
        query = self._linear(f"{name}.{CROSS}.to_q", self._layer_norm(name, 2, h))
        h = h + self._linear(f"{name}.{CROSS}.to_out.0", attend(query, *memories[f"{name}.{CROSS}"], heads))
        inner, gate = self._linear(f"{name}.{FEED}.0.proj", self._layer_norm(name, 3, h)).chunk(2, -1)
        h = h + self._linear(f"{name}.{FEED}.2", inner * gelu(gate))
        return x + self._conv(f"{name}.proj_out", h.reshape(B, H, W, C).permute(0, 3, 1, 2))

    def _embedded(self, name: str, x: Tensor) -> Tensor:
        return self._linear(f"{name}.linear_2", silu(self._linear(f"{name}.linear_1", x)))

    def _conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self._weights[f"{name}.weight"]
        padding = weight.shape[-1] // 2
        return conv2d(x.to(weight.dtype), weight, self._weights[f"{name}.bias"], stride, padding).float()

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return linear(x.to(self._dtype), self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias"))

    def _group_norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        groups = self.config.norm_num_groups
        return group_norm(x, groups, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], eps)

    def _layer_norm(self, name: str, number: int, x: Tensor) -> Tensor:
        weight = self._weights[f"{name}.transformer_blocks.0.norm{number}.weight"]
        bias = self._weights[f"{name}.transformer_blocks.0.norm{number}.bias"]
        return layer_norm(x, weight.shape, weight, bias)

    def _placed(self, name: str, value: Tensor) -> Tensor:
        """A weight in its type and layout: float32 for norms and the residual sum, channels-last for convolutions."""
        value = value.to(torch.float32 if any(part in name for part in PRECISE) else self._dtype)
        return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value.contiguous()

    def _join(self) -> None:
        """Join the weights of projections that share their input, so that each group is one product."""
        w = self._weights
        for part in ("weight", "bias"):
            w[f"shifts.{part}"] = torch.cat([w[f"{name}.time_emb_proj.{part}"] for name in self._resnets])
        rows = [w[f"{name}.to_{part}.weight"] for name in self._crossings for part in "kv"]
        w["memories.weight"] = torch.cat(rows)
        for name in self._crossings:
            own = name.removesuffix(CROSS) + SELF
            w[f"{own}.joined.weight"] = torch.cat([w[f"{own}.to_{part}.weight"] for part in "qkv"])


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attention with ``heads`` heads; query, key and value are [B, L, C]."""
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    return scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def read_unet_config(folder: Path) -> dict[str, Any]:
    """Read the folder's config.json, if the network is of the kind that is written out here.

    Raises:
        BadFile: it cannot be read, or is of another kind.
    """
    path = folder / "config.json"
    with failing_as(BadFile, f"{path} is not the config of a U-Net"):
        config = read_json(path)
        strange = [(key, config[key]) for key, value in FIXED.items() if config.get(key, value) != value]
        strange += [(key, config.get(key)) for key, value in NAMED.items() if config.get(key) != value]
        sides = ("down_block_types", "up_block_types")
        strange += [(side, kind) for side in sides for kind in config[side] if kind not in BLOCKS]
    if strange:
        raise BadFile(f"{path}: a world's prior has no {strange[0][0]} = {strange[0][1]}")
    return config
