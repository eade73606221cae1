"""The two models of the shapes world's Point-E as they learn: settings, networks, the text encoder's first lesson.

Used by train_shapes_points.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from shapes_clouds import Clouds
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from gsdistill.point_e.card import BaseCard, Card, UpsamplerCard
from gsdistill.point_e.sampler import Sampling
from gsdistill.point_e.transformer import (
    CHANNELS,
    Size,
    TextPointDiffusionTransformer,
    UpsamplePointDiffusionTransformer,
)
from gsdistill.worlds.base import Thing
from gsdistill.worlds.shapes.captions import COLORS, SHAPES, parse

__all__ = ["CARD", "Base", "Settings", "learning_rate", "make", "teach_naming", "tokens"]

Part = Literal["base", "upsampler"]

CARD = Card(
    name="shapes",
    world="shapes",
    base=BaseCard(
        Size(width=128, layers=7, heads=4, outputs=CHANNELS),
        text_width=128,
        points=512,
        sampling=Sampling(steps=32, sigma_min=5e-3, sigma_max=20.0, s_churn=3.0, guidance_scale=1.0),
    ),
    upsampler=UpsamplerCard(
        Size(width=96, layers=6, heads=3, outputs=CHANNELS),
        grid_tokens=1,
        grid_width=8,
        points=512,
        schedule="cosine",
        sampling=Sampling(steps=24, sigma_min=5e-3, sigma_max=20.0, s_churn=3.0, guidance_scale=0.0),
    ),
    licence="Apache-2.0",
)
TEXT_WIDTH = CARD.base.text_width
NAMING_BATCH = 256


@dataclass(frozen=True)
class Settings:
    """Settings of one training; they are written next to the weights."""

    # which of the two models
    part: Part
    # folder for checkpoints
    work: Path
    # folder of the finished model
    output: Path
    # optimiser steps, where no minutes are given
    steps: int = 10_000
    # end after this time instead, over all runs of this work folder
    minutes: float | None = None
    # points drawn once on the surface of every object, which clouds are picked from
    surface: int = 16_384
    # noisy points of all clouds of a step
    batch: int = 2048
    # peak learning rate
    lr: float = 1.5e-3
    # share of the run after which the rate falls by a cosine to 1 %
    decay_from: float = 0.3
    # decay of the weights' moving average
    ema: float = 0.999
    # steps by which the text encoder learns to name parts, before the base starts
    naming_steps: int = 800
    # share of texts replaced by none
    dropout: float = 0.1
    # largest standard deviation of the noise on the upsampler's coarse points, of the half-width of the data's range
    jitter: float = 0.06
    # shares of the run between which the draw of the timestep goes from u T to u^2 T, u even in 0..1
    focus: tuple[float, float] = (0.12, 0.2)
    # share of the run from which on the target is the noise to be expected at a point, not the one drawn
    expected_from: float = 0.0
    # seconds between checkpoints
    save_every: float = 180.0
    # stop here with a checkpoint, to go on another time
    stop_after: int | None = None
    seed: int = 0


class Base(nn.Module):
    """Text encoder and transformer as one module."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        config = CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=96, intermediate_size=256, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=tokenizer.model_max_length, projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        self.text_encoder = CLIPTextModelWithProjection(config)
        self.transformer = TextPointDiffusionTransformer(CARD.base.size, TEXT_WIDTH)

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings of length 1."""
        return normalize(self.text_encoder(ids).text_embeds.float(), dim=-1)

    def forward(self, x: Tensor, t: Tensor, ids: Tensor, kept: Tensor) -> Tensor:
        """Predicted noise; where ``kept`` [B] is 0 there is no text."""
        return self.transformer(x, t, self.embed(ids) * kept[:, None])


def teach_naming(base: Base, tokenizer: CLIPTokenizer, clouds: Clouds, settings: Settings) -> float:
    """Teach the text encoder to tell colour and solid of both parts to four linear readers; returns the last loss."""
    loss = torch.zeros(())
    choices = (len(COLORS), len(SHAPES), len(COLORS) + 1, len(SHAPES) + 1)  # one more: there is no second part
    readers = nn.Linear(TEXT_WIDTH, sum(choices))
    optimizer = torch.optim.AdamW([*base.text_encoder.parameters(), *readers.parameters()], lr=settings.lr)
    for step in range(settings.naming_steps):
        captions, _ = clouds.batch(NAMING_BATCH, 1, (settings.seed, step, 1 << 20))
        labels = torch.tensor([_label(parse(text)) for text in captions])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step, step / settings.naming_steps)
        scores = readers(base.embed(tokens(tokenizer, captions)) * TEXT_WIDTH**0.5).split(choices, dim=1)
        loss = torch.stack([cross_entropy(score, labels[:, i]) for i, score in enumerate(scores)]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"naming step {step + 1}  loss {loss.item():.4f}", flush=True)
    return loss.item()


def _label(things: tuple[Thing, ...]) -> list[int]:
    pairs = [(list(COLORS).index(thing.color), SHAPES.index(thing.shape)) for thing in things]
    second = pairs[1] if len(pairs) == 2 else (len(COLORS), len(SHAPES))
    return [*pairs[0], *second]


def tokens(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids of captions, padded to the encoder's length."""
    return tokenizer(captions, padding="max_length", return_tensors="pt").input_ids


def make(settings: Settings, tokenizer: CLIPTokenizer) -> nn.Module:
    """The module that is trained, from the seed."""
    torch.manual_seed(settings.seed)
    if settings.part == "base":
        return Base(tokenizer)
    card = CARD.upsampler
    return UpsamplePointDiffusionTransformer(card.size, card.grid_tokens, card.grid_width)


def learning_rate(settings: Settings, step: int, share: float) -> float:
    """Linear warm-up over 200 steps, then constant, then a cosine to 1 %; ``share`` of the run is over."""
    tail = max(share - settings.decay_from, 0.0) / (1.0 - settings.decay_from)
    cosine = 0.01 + 0.99 * 0.5 * (1.0 + torch.cos(torch.tensor(torch.pi * min(tail, 1.0))).item())
    return settings.lr * min(1.0, (step + 1) / 200) * cosine
