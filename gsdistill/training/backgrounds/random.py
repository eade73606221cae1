"""Any colour, another one in each view."""

from __future__ import annotations

from dataclasses import dataclass

from gsdistill.core.ranges import bounded
from gsdistill.training.backgrounds.grey import Grey

__all__ = ["Random"]


@dataclass(frozen=True, kw_only=True)
class Random(Grey):
    """Settings of random: mid grey where no other colour is drawn."""

    random: float = bounded(1.0, low=0, high=1)  # share of the views that have a random colour instead
