"""No finish: the run is the method's alone, as papers have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gsdistill.training.finish.base import Finish

__all__ = ["Without"]


@dataclass(frozen=True)
class Without(Finish):
    """Nothing after the method."""

    def steps(self, iterations: int) -> int:
        """Returns 0."""
        return 0

    def overrides(self, views: int) -> dict[str, Any]:
        """Returns no settings."""
        return {}
