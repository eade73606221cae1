"""White."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gsdistill.training.backgrounds.base import Level

__all__ = ["White"]


@dataclass(frozen=True, kw_only=True)
class White(Level):
    """Settings of white."""

    LEVEL: ClassVar[float] = 1.0
