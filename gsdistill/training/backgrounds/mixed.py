"""Mid grey or any colour, with equal chances for each view."""

from __future__ import annotations

from dataclasses import dataclass

from gsdistill.core.ranges import bounded
from gsdistill.training.backgrounds.grey import Grey

__all__ = ["Mixed"]


@dataclass(frozen=True, kw_only=True)
class Mixed(Grey):
    """Settings of mixed: mid grey where no other colour is drawn."""

    random: float = bounded(0.5, low=0, high=1)  # share of the views that have a random colour instead
