"""Black."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gsdistill.training.backgrounds.base import Level

__all__ = ["Black"]


@dataclass(frozen=True, kw_only=True)
class Black(Level):
    """Settings of black."""

    LEVEL: ClassVar[float] = 0.0
