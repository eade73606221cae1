"""The two transformers of Point-E (https://arxiv.org/abs/2212.08751, section 4.2), with the published parameter names.

A noisy cloud x [B, C, N] of N points enters as N tokens without position encoding, so the network commutes with every
permutation of the points. Its conditions (the timestep, the text, a coarse cloud) enter as further tokens, which are
dropped before the output. The first C output channels predict the noise; the others are not used here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded

__all__ = [
    "CHANNELS", "POINT_BIASES", "POINT_SCALES", "PointDiffusionTransformer", "Size", "TextPointDiffusionTransformer",
    "UpsamplePointDiffusionTransformer", "timestep_embedding",
]  # fmt: skip

CHANNELS = 6  # x y z in the cube of half-width 0.5, then red, green, blue in 0..255
POINT_SCALES = (2.0, 2.0, 2.0, 2.0 / 255.0, 2.0 / 255.0, 2.0 / 255.0)  # the diffusion's x = scale * value + bias
POINT_BIASES = (0.0, 0.0, 0.0, -1.0, -1.0, -1.0)


@dataclass(frozen=True)
class Size:
    """The size of a transformer."""

    width: int = bounded(512, low=1, high=8192)
    layers: int = bounded(12, low=1, high=256)
    heads: int = bounded(8, low=1)  # each has an equal share of the width
    outputs: int = bounded(2 * CHANNELS, low=CHANNELS, high=64)  # channels: the noise, and its variance

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError(f"width = {self.width} is no multiple of heads = {self.heads}")


def timestep_embedding(t: Float[Tensor, "B"], width: int) -> Float[Tensor, "B W"]:
    """Cosines, then sines, of t / 10000^(k / half) for k = 0 .. half - 1, half = ``width`` / 2; ``width`` is even."""
    half = width // 2
    rates = torch.exp(-math.log(10_000.0) / half * torch.arange(half, device=t.device, dtype=torch.float32))
    angles = t.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Mlp(nn.Module):
    """Two linear maps with a GELU between them; the hidden layer is four times as wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "*B W"]) -> Float[Tensor, "*B W"]:
        """Return the output, which the caller adds to ``x``."""
        return self.c_proj(gelu(self.c_fc(x)))


class Attention(nn.Module):
    """Softmax attention of all tokens to all; ``c_qkv`` holds query, key and value of one head after the other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_qkv = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        """Return the attended values of the tokens, which the caller adds to ``x``."""
        batch, count, width = x.shape
        heads = self.c_qkv(x).view(batch, count, self.heads, -1).transpose(1, 2)
        gathered = scaled_dot_product_attention(*heads.chunk(3, dim=-1))
        return self.c_proj(gathered.transpose(1, 2).reshape(batch, count, width))


class Block(nn.Module):
    """Attention and an MLP, each applied to normalised tokens and added to the tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = Mlp(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        """Return the tokens of the next layer."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Backbone(nn.Module):
    """The blocks, one after the other."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList([Block(size.width, size.heads) for _ in range(size.layers)])

    def forward(self, x: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        """Return the tokens after the last layer."""
        for block in self.resblocks:
            x = block(x)
        return x


class PointDiffusionTransformer(nn.Module):
    """What both models share: from the timestep and the points to the output channels of the points."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.time_embed = Mlp(size.width)
        self.ln_pre = nn.LayerNorm(size.width)
        self.backbone = Backbone(size)
        self.ln_post = nn.LayerNorm(size.width)
        self.input_proj = nn.Linear(CHANNELS, size.width)
        self.output_proj = nn.Linear(size.width, size.outputs)

    def attend(
        self, x: Float[Tensor, "B C N"], t: Float[Tensor, "B"], conditions: Float[Tensor, "B M W"]
    ) -> Float[Tensor, "B O N"]:
        """Run the layers over the time token, the tokens of the ``conditions``, and the points."""
        time = self.time_embed(timestep_embedding(t, self.size.width).to(conditions.dtype))
        tokens = torch.cat([time[:, None], conditions, self.input_proj(x.transpose(1, 2))], dim=1)
        tokens = self.ln_post(self.backbone(self.ln_pre(tokens)))
        return self.output_proj(tokens[:, -x.shape[2] :]).transpose(1, 2)


class TextPointDiffusionTransformer(PointDiffusionTransformer):
    """The base model: one token holds the text. Point-E calls it base40M-textvec."""

    def __init__(self, size: Size, text_width: int = 768) -> None:
        super().__init__(size)
        self.text_width = text_width
        self.clip_embed = nn.Linear(text_width, size.width)

    def forward(
        self, x: Float[Tensor, "B C N"], t: Float[Tensor, "B"], text: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B O N"]:
        """Predict the noise of ``x`` at timestep ``t`` from text embeddings of length 1; zeros stand for no text."""
        return self.attend(x, t, self.clip_embed(math.sqrt(self.text_width) * text)[:, None])


class UpsamplePointDiffusionTransformer(PointDiffusionTransformer):
    """The upsampler: every coarse point is a token. Its picture condition is zeros, as Point-E has it for texts."""

    channel_scales: Tensor
    channel_biases: Tensor

    def __init__(self, size: Size, grid_tokens: int = 256, grid_width: int = 1024) -> None:
        super().__init__(size)
        self.grid_tokens, self.grid_width = grid_tokens, grid_width
        self.register_buffer("channel_scales", torch.tensor(POINT_SCALES))
        self.register_buffer("channel_biases", torch.tensor(POINT_BIASES))
        self.cond_point_proj = nn.Linear(CHANNELS, size.width)
        self.clip_embed = nn.Sequential(nn.LayerNorm(grid_width), nn.Linear(grid_width, size.width))

    def forward(
        self, x: Float[Tensor, "B C N"], t: Float[Tensor, "B"], coarse: Float[Tensor, "B C M"]
    ) -> Float[Tensor, "B O N"]:
        """Predict the noise of the further points ``x``; ``coarse`` has positions in +-0.5 and colours in 0..255."""
        scaled = coarse.transpose(1, 2) * self.channel_scales + self.channel_biases
        grid = self.clip_embed(x.new_zeros(len(x), self.grid_tokens, self.grid_width))
        points = self.cond_point_proj(scaled)
        return self.attend(x, t, torch.cat([grid.to(points.dtype), points], dim=1))
