"""One colour, named by the user."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.ranges import bounded
from gsdistill.training.backgrounds.base import Background

__all__ = ["Solid"]


@dataclass(frozen=True, kw_only=True)
class Solid(Background):
    """Settings of one colour."""

    color: tuple[float, float, float] = bounded((0.5, 0.5, 0.5), low=0, high=1)  # red, green and blue

    @property
    def own(self) -> Float[Tensor, "4"]:
        """The colour."""
        return torch.tensor([*self.color, 0.0])
