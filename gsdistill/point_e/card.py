"""The sizes and sampling of a Point-E's two models: from a folder's ``config.json``, or OpenAI's values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.disk.read import read_json
from gsdistill.models.card import check_world
from gsdistill.point_e.sampler import Sampling, Schedule
from gsdistill.point_e.transformer import Size
from gsdistill.settings.config import from_file

__all__ = ["OPENAI", "BaseCard", "Card", "UpsamplerCard", "read_card"]


@dataclass(frozen=True)
class BaseCard:
    """The model that makes the coarse cloud from a text; the defaults are those of OpenAI's base40M-textvec."""

    size: Size = field(default_factory=Size)
    text_width: int = bounded(768, low=1, high=8192)
    points: int = bounded(1024, low=1, high=65536)
    schedule: Schedule = "cosine"
    timesteps: int = bounded(1024, low=1, high=100_000)
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class UpsamplerCard:
    """The model that adds points to a coarse cloud; the defaults are those of OpenAI's upsample."""

    size: Size = field(default_factory=Size)
    grid_tokens: int = bounded(256, low=0, high=8192)
    grid_width: int = bounded(1024, low=1, high=8192)
    points: int = bounded(3072, low=1, high=65536)
    schedule: Schedule = "linear"
    timesteps: int = bounded(1024, low=1, high=100_000)
    sampling: Sampling = field(default_factory=lambda: Sampling(sigma_max=160.0, s_churn=0.0, guidance_scale=0.0))

    def __post_init__(self) -> None:
        if self.sampling.guidance_scale not in (0.0, 1.0):
            raise ConfigError(f"the upsampler takes no guidance: scale 0 or 1, not {self.sampling.guidance_scale:g}")


@dataclass(frozen=True)
class Card:
    """Both models, the closed world of prompts that they know, if there is one, and which way their objects face."""

    name: str
    world: str | None = None  # the closed world whose prompts alone it knows; none: any prompt
    front: Literal["+x", "-y"] = "+x"  # the direction of an object's front in the model's own axes
    base: BaseCard = field(default_factory=BaseCard)
    upsampler: UpsamplerCard = field(default_factory=UpsamplerCard)
    licence: str = "MIT"

    def __post_init__(self) -> None:
        check_world(self.world)


# Shap-E, which learned from the same data, has cameras that begin at -y, so we take that as the front.
OPENAI = Card("openai", front="-y")


def read_card(path: Path) -> Card:
    """Read a ``config.json``; every key must be known.

    Raises:
        BadFile: it cannot be read, is no JSON object, or has an unknown key or a wrong value.
    """
    return from_file(Card, read_json(path), path)
