"""The contract of a finish: how many of a run's steps it takes, and what its stage has other than the one before."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

__all__ = ["Finish"]


class Finish(ABC):
    """Settings of a finish; a leaf is a frozen dataclass."""

    @abstractmethod
    def steps(self, iterations: int) -> int:
        """How many of so many steps it takes: less than all."""

    @abstractmethod
    def overrides(self, views: int) -> dict[str, Any]:
        """The settings of its stage but its steps that differ from those of the one before, of so many views a step."""
