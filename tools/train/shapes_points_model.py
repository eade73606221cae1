"""The two models of the shapes world's Point-E as they learn: settings, networks, the text encoder's first lesson.

Used by train_shapes_points.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from shapes_clouds import Clouds
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from gsdistill.core.ranges import bounded
from gsdistill.learning.stream import Key
from gsdistill.learning.trainer import Trainer, TrainerSettings
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

__all__ = ["CARD", "Base", "Settings", "make", "teach_naming", "tokens"]

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


@dataclass(frozen=True, kw_only=True)
class Settings(TrainerSettings):
    """Settings of one training; those that tell the result are written next to the weights."""

    # which of the two models
    part: Part
    # folder for checkpoints
    work: Path
    # folder of the finished model
    output: Path
    # points drawn once on the surface of every object, which clouds are picked from
    surface: int = 16_384
    # noisy points of all clouds of a shard
    batch: int = 2048
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
    # where to compute
    device: str = "auto"
    # peak learning rate
    lr: float = bounded(1.5e-3, above=0)
    # share of the run after which the rate falls by a cosine
    decay_from: float = bounded(0.3, low=0, below=1)
    # what is left of the rate at the end, as a share
    floor: float = bounded(0.01, low=0, high=1)


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


class Namer(nn.Module):
    """Text encoder and four linear readers of its embeddings: colour and solid of both parts."""

    CHOICES = (len(COLORS), len(SHAPES), len(COLORS) + 1, len(SHAPES) + 1)  # one more: there is no second part

    def __init__(self, base: Base) -> None:
        super().__init__()
        self.text_encoder, self.readers = base.text_encoder, nn.Linear(TEXT_WIDTH, sum(self.CHOICES))

    def forward(self, ids: Tensor) -> tuple[Tensor, ...]:
        """Scores of the choices, one tensor for each reader."""
        embedding = normalize(self.text_encoder(ids).text_embeds.float(), dim=-1)
        return self.readers(embedding * TEXT_WIDTH**0.5).split(self.CHOICES, dim=1)


def teach_naming(
    base: Base, tokenizer: CLIPTokenizer, clouds: Clouds, settings: Settings, asked: Callable[[], bool]
) -> Trainer:
    """Teach the text encoder to name the parts of a caption, until an end is ``asked`` for; returns the training."""
    namer = Namer(base).to(next(base.parameters()).device)

    def draw(key: Key) -> dict[str, Tensor]:
        captions, _ = clouds.batch(NAMING_BATCH, 1, key)
        return {"ids": tokens(tokenizer, captions), "labels": torch.tensor([_label(parse(text)) for text in captions])}

    def loss(network: Callable[..., tuple[Tensor, ...]], batch: dict[str, Tensor], progress: float) -> Tensor:
        scores = zip(network(batch["ids"]), batch["labels"].T, strict=True)
        return torch.stack([cross_entropy(score.float(), label) for score, label in scores]).mean()

    steps, every = settings.naming_steps, max(1, settings.naming_steps // 10)
    trainer = Trainer(namer, loss, draw, replace(settings, steps=steps, minutes=None, stop_after=None, log_every=every))
    trainer.run(settings.work / "naming.pt", asked)
    return trainer


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
