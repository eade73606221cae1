"""Mid grey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gsdistill.training.backgrounds.base import Level

__all__ = ["Grey"]


@dataclass(frozen=True, kw_only=True)
class Grey(Level):
    """Settings of mid grey."""

    LEVEL: ClassVar[float] = 0.5
