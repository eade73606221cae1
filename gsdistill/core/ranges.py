"""Fields of settings whose values have a range."""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["LIMITS", "bounded"]

LIMITS = {"low": "at least", "above": "greater than", "high": "at most", "below": "less than"}  # in messages and help


def bounded(
    default: Any = dataclasses.MISSING,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """Return a dataclass field with a range. ``low`` and ``high`` are themselves allowed, ``above`` and ``below`` not.

    The range holds for each number of a tuple and for both ends of a :class:`gsdistill.settings.ramp.Ramp`.
    """
    limits = {"low": low, "above": above, "high": high, "below": below}
    return dataclasses.field(default=default, metadata={k: v for k, v in limits.items() if v is not None})
