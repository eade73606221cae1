"""The contract of a demonstration: settings in, figures and a picture out; equal settings give equal figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Demonstration", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """The measured figures, as JSON can hold them, and a function that draws them as a matplotlib figure."""

    figures: dict[str, Any]
    draw: Callable[[], Any]


class Demonstration(ABC):
    """Settings of one demonstration; subclasses are final frozen dataclasses."""

    @abstractmethod
    def run(self) -> Outcome:
        """Compute the figures.

        Raises:
            UserError: a setting, a prompt or a prior cannot serve.
        """
