"""A large random network in float64, for comparing two implementations of a score-distillation method.

The network stands in for a diffusion model: eps(x [B, 4, 16, 16], t [B], text [B, L, D], camera [B, 16] or None).
It is non-linear in the latent, depends on the timestep, on every text token and on the camera, and has a learned
position, so that no symmetry can hide a mistake. Its weights come from numpy, so that every machine has the same.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

CHANNELS, SIZE, TOKENS, TEXT = 4, 16, 7, 32
WIDTH, HIDDEN, BLOCKS = 48, 256, 3


class Block(nn.Module):
    """Two convolutions, each modulated by the condition, then attention of the pixels to the text tokens."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.second = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.modulation = nn.Linear(HIDDEN, 4 * WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(HIDDEN, WIDTH)
        self.value = nn.Linear(HIDDEN, WIDTH)
        self.norm = nn.GroupNorm(4, WIDTH)

    def forward(self, x, condition, tokens):
        scale, shift, scale2, shift2 = self.modulation(condition)[:, :, None, None].chunk(4, dim=1)
        y = nn.functional.silu(self.first(self.norm(x)) * (1 + scale) + shift)
        x = x + self.second(y) * (1 + scale2) + shift2
        pixels = x.flatten(2).transpose(1, 2)
        mix = torch.softmax(self.query(pixels) @ self.key(tokens).transpose(1, 2) / math.sqrt(WIDTH), dim=-1)
        return x + (mix @ self.value(tokens)).transpose(1, 2).reshape(x.shape)


class Network(nn.Module):
    """The whole network. A camera of zeros is a camera too; None leaves the camera's part out."""

    def __init__(self, seed):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(128, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN))
        self.camera = nn.Sequential(nn.Linear(16, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN))
        self.token = nn.Sequential(nn.Linear(TEXT, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh())
        self.pooled = nn.Linear(HIDDEN, HIDDEN)
        self.joint = nn.Linear(HIDDEN, HIDDEN)
        self.enter = nn.Conv2d(CHANNELS, WIDTH, 3, padding=1)
        self.place = nn.Parameter(torch.zeros(1, WIDTH, SIZE, SIZE))
        self.order = nn.Parameter(torch.zeros(1, TOKENS, TEXT))
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm = nn.GroupNorm(4, WIDTH)
        self.leave = nn.Conv2d(WIDTH, CHANNELS, 3, padding=1)
        self.double().eval().requires_grad_(False)
        draw = np.random.default_rng(seed)
        for name, weight in self.named_parameters():
            fan_in = max(1, weight[0].numel()) if weight.ndim > 1 else 16
            scale = 0.5 if name in ("place", "order") else 1 / math.sqrt(fan_in)
            scale *= 2.5 if any(part in name for part in ("pooled", "value", "query", "modulation")) else 1
            value = scale * draw.standard_normal(tuple(weight.shape))
            weight.copy_(torch.from_numpy(value + (1 if "norm.weight" in name else 0)))

    def forward(self, x, t, text, camera=None):
        angle = t.double()[:, None] * torch.exp(-math.log(10000.0) / 64 * torch.arange(64, dtype=torch.float64))
        condition = self.time(torch.cat([angle.sin(), angle.cos()], dim=1))
        tokens = self.token(text + self.order)
        condition = condition + self.pooled(tokens.mean(dim=1))
        if camera is not None:
            condition = condition + self.camera(camera)
        condition = torch.tanh(self.joint(nn.functional.silu(condition)))
        y = self.enter(x) + self.place
        for block in self.blocks:
            y = block(y, condition, tokens)
        return 0.5 * x + 0.6 * self.leave(nn.functional.silu(self.norm(y)))


def build(seed):
    """The network of a seed. The cases use seed 1 for the prior and seed 2 for the student."""
    return Network(seed)
