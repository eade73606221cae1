"""Black."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from gsdistill.training.backgrounds.base import Background

__all__ = ["Black"]


@dataclass(frozen=True, kw_only=True)
class Black(Background):
    """Settings of black."""

    @property
    def own(self) -> Float[Tensor, "4"]:
        """Black."""
        return self.plain(0.0, 0.0, 0.0)
