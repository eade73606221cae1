"""The interface of a finish: how many of a run's steps it takes, and which settings its stage changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

__all__ = ["Finish"]


class Finish(ABC):
    """Settings of a finish; a leaf is a frozen dataclass. Sweeps set the ``share`` of the steps that it takes."""

    @abstractmethod
    def steps(self, iterations: int) -> int:
        """How many of a run's ``iterations`` steps the finish takes, 0 .. iterations - 1."""

    @abstractmethod
    def overrides(self, views: int) -> dict[str, Any]:
        """The settings, except the number of steps, in which its stage differs from the one before.

        ``views`` is the number of views a step of the stage before.
        """
