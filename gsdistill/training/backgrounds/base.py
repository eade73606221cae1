"""The interface of a background: what is behind the scene in each training view, and whether it is learned.

A background has one colour, or is learned, or is any colour; in a share of the views it gives way to a random colour,
to white or to black. The released programs differ in what the views of one step share, so that is a setting.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Cameras, Render

__all__ = ["Background", "Learned", "Level"]


class Learned(ABC):
    """A background that is learned with the scene: what the training loop asks of it."""

    @abstractmethod
    def behind(self, render: Render, cameras: Cameras, where: Float[Tensor, "B"]) -> Render:
        """The render, made over black where ``where`` is 1, over the background there; elsewhere unchanged."""

    @abstractmethod
    def update(self, progress: float, good: Bool[Tensor, ""]) -> None:
        """Follow the gradients at ``progress`` (0..1) of the stage and forget them; if not ``good``, only forget."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Every tensor that decides how it continues, by name."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a :meth:`state` of the same names, shapes and types."""


@dataclass(frozen=True, kw_only=True)
class Background(ABC):
    """Settings of a background; a leaf is a frozen dataclass."""

    random: float = bounded(0.0, low=0, high=1)  # share of the views that have a random colour instead
    white: float = bounded(0.0, low=0, high=1)  # share of the views that have white instead
    black: float = bounded(0.0, low=0, high=1)  # share of the views that have black instead
    # what all views of a step share: none, the kind (each random colour is its own), or the kind and the random colour
    shared: Literal["none", "kind", "all"] = "none"

    def __post_init__(self) -> None:
        if self.random + self.white + self.black > 1 + 1e-9:  # 0.33, 0.56 and 0.11 are more than 1 by rounding
            shares = f"random = {self.random:g}, white = {self.white:g} and black = {self.black:g}"
            raise ConfigError(f"background: the shares {shares} add up to more than 1")

    @property
    @abstractmethod
    def own(self) -> Float[Tensor, "4"]:
        """The colour of the other views, RGB in 0..1, and 0; of one that is learned 0, 0, 0 and 1."""

    def begin(self, before: Learned | None, generator: torch.Generator, device: torch.device) -> Learned | None:
        """What is learned in a stage with this background, if anything is.

        ``before`` is that of the stage before, which may go on; a new one takes its random numbers from ``generator``.
        """
        return None

    def draw(self, count: int, generator: torch.Generator) -> Float[Tensor, "{count} 4"]:
        """The colour of each view, RGB in 0..1, and 1 where what is learned takes its place; there it is black.

        ``generator`` is asked only for what the shares need.
        """
        own, rows = self.own, count if self.shared != "all" else 1
        rest = 1.0 - self.random - self.white - self.black
        drawn = torch.zeros(rows, 4)
        if self.random:
            drawn[:, :3] = torch.rand(rows, 3, generator=generator)
        if rest >= 1 or self.random >= 1:
            return (own if rest >= 1 else drawn).expand(count, 4)
        chance = torch.rand(count if self.shared == "none" else 1, 1, generator=generator)
        white, black = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.zeros(4)
        shown = torch.where(chance < rest + self.random + self.white, white, black)
        shown = torch.where(chance < rest + self.random, drawn, shown)
        return torch.where(chance < rest, own, shown).expand(count, 4)


class Level(Background):
    """Base of the grey ones, of which each has one level."""

    LEVEL: ClassVar[float]  # 0 black, 1 white

    @property
    def own(self) -> Float[Tensor, "4"]:
        """The level in all three colours."""
        return torch.tensor([self.LEVEL, self.LEVEL, self.LEVEL, 0.0])
