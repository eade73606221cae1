"""Mid grey."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from gsdistill.training.backgrounds.base import Background

__all__ = ["Grey"]


@dataclass(frozen=True, kw_only=True)
class Grey(Background):
    """Settings of mid grey."""

    @property
    def own(self) -> Float[Tensor, "4"]:
        """Mid grey."""
        return self.plain(0.5, 0.5, 0.5)
