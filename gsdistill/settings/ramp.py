"""Schedules: a number that changes over a run, and the one text syntax for it.

With u = min(progress / until, 1), value = start + (end - start) * law(u), where law(u) is u (linear), sqrt(u) (sqrt) or
(1 - cos(pi u)) / 2 (cosine). Progress is the finished share, 0..1, of a stage (a run without stages is one stage), so
that a schedule does not depend on the number of steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from gsdistill.core.errors import ConfigError, did_you_mean

__all__ = ["Ramp", "shortest"]

LAWS = ("linear", "sqrt", "cosine")
SYNTAX = "write 7.5, 101:51, 700:100:sqrt or 101:51@0.6"


@dataclass(frozen=True)
class Ramp:
    """A number that goes from ``start`` to ``end``; it reaches ``end`` at progress ``until`` and stays there.

    Written ``7.5`` (constant), ``101:51`` (linear), ``700:100:sqrt``, and with ``@0.6`` for ``until``.

    Raises:
        ConfigError: a number is not finite, ``until`` is outside (0, 1], or the law is unknown.
    """

    start: float
    end: float
    law: Literal["linear", "sqrt", "cosine"] = "linear"
    until: float = 1.0

    def __post_init__(self) -> None:
        if self.law not in LAWS:
            hint = did_you_mean(self.law, LAWS)
            raise ConfigError(f"unknown schedule law '{self.law}'.{hint} Available: {', '.join(LAWS)}")
        if not all(isinstance(x, Real) and math.isfinite(x) for x in (self.start, self.end, self.until)):
            raise ConfigError(f"a schedule takes finite numbers, not {self.start}:{self.end}@{self.until}")
        if not 0 < self.until <= 1:
            raise ConfigError(f"a schedule ends at a fraction of the run in (0, 1], not at @{shortest(self.until)}")

    def __call__(self, progress: float) -> float:
        """Return the value at ``progress``, the finished share of the stage, clamped to [0, 1]."""
        u = min(max(progress, 0.0) / self.until, 1.0)
        if u == 1.0:
            return self.end
        bent = {"linear": u, "sqrt": math.sqrt(u), "cosine": 0.5 - 0.5 * math.cos(math.pi * u)}[self.law]
        return self.start * (1.0 - bent) + self.end * bent

    def __str__(self) -> str:
        if self.start == self.end and self.law == "linear" and self.until == 1.0:
            return shortest(self.start)
        law = "" if self.law == "linear" else f":{self.law}"
        until = "" if self.until == 1.0 else f"@{shortest(self.until)}"
        return f"{shortest(self.start)}:{shortest(self.end)}{law}{until}"

    @classmethod
    def parse(cls, text: str | float) -> Ramp:
        """Read ``start[:end[:law]][@until]`` or a plain number.

        Raises:
            ConfigError: the text has another form, or a value is not allowed.
        """
        body, at, until = str(text).partition("@")
        start, *rest = body.split(":")
        if len(rest) > 2 or isinstance(text, bool):
            raise ConfigError(f"'{text}' is not a schedule; {SYNTAX}")
        try:
            ends = float(start), float(rest[0] if rest else start), float(until) if at else 1.0
        except ValueError:
            raise ConfigError(f"'{text}' is not a schedule; {SYNTAX}") from None
        law: Any = rest[1].strip() if len(rest) == 2 else "linear"
        return cls(ends[0], ends[1], law, ends[2])


def shortest(value: float) -> str:
    """Return the shortest text that reads back as ``value``, without a trailing ``.0``."""
    return repr(float(value)).removesuffix(".0")
