"""White."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from gsdistill.training.backgrounds.base import Background

__all__ = ["White"]


@dataclass(frozen=True, kw_only=True)
class White(Background):
    """Settings of white."""

    @property
    def own(self) -> Float[Tensor, "4"]:
        """White."""
        return self.plain(1.0, 1.0, 1.0)
