"""Schedules: a number that changes over a run, and the one text syntax for it.

With u = (progress - begin) / (until - begin), clamped to 0..1, value = start + (end - start) * law(u), where law(u) is
u (linear), sqrt(u) (sqrt), (1 - cos(pi u)) / 2 (cosine), or 0 before u = 1 and 1 there (step); with the law exp it is
start^(1 - u) end^u, as learning rates of 3D Gaussian Splatting fall. Progress is the finished share, 0..1, of a stage
(a run without stages is one stage), so that a schedule does not depend on the number of steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from gsdistill.core.errors import ConfigError, did_you_mean

__all__ = ["Ramp", "shortest"]

LAWS = ("linear", "sqrt", "cosine", "step", "exp")
SYNTAX = "write 7.5, 101:51, 700:100:sqrt, 101:51@0.6, 0:10@0.4..0.8 or 0.98:0.5:step@0.2"


@dataclass(frozen=True)
class Ramp:
    """A number that leaves ``start`` at progress ``begin`` and reaches ``end`` at progress ``until``, to stay there.

    Written ``7.5`` (constant), ``101:51`` (linear), ``700:100:sqrt``, with ``@0.6`` for ``until``, or ``@0.4..0.8`` for
    ``begin`` and ``until``. ``0.98:0.5:step@0.2`` jumps at 0.2.

    Raises:
        ConfigError: a number is not finite, not 0 <= ``begin`` < ``until`` <= 1, or the law is unknown; the law is exp
            and an end is not above 0.
    """

    start: float
    end: float
    law: Literal["linear", "sqrt", "cosine", "step", "exp"] = "linear"
    until: float = 1.0
    begin: float = 0.0

    def __post_init__(self) -> None:
        if self.law not in LAWS:
            hint = did_you_mean(self.law, LAWS)
            raise ConfigError(f"unknown schedule law '{self.law}'.{hint} Available: {', '.join(LAWS)}")
        numbers = (self.start, self.end, self.begin, self.until)
        if not all(isinstance(x, Real) and math.isfinite(x) for x in numbers):
            raise ConfigError(f"a schedule takes finite numbers, not {':'.join(map(str, numbers))}")
        if not 0 < self.until <= 1:
            raise ConfigError(f"a schedule ends at a fraction of the run in (0, 1], not at @{shortest(self.until)}")
        if not 0 <= self.begin < self.until:
            ends = f"before its end {shortest(self.until)}"
            raise ConfigError(f"a schedule begins at 0 or later, and {ends}, not at {shortest(self.begin)}")
        if self.law == "exp" and min(self.start, self.end) <= 0:
            raise ConfigError(f"a schedule with the law exp has ends above 0, not {self.start:g} and {self.end:g}")
        if self.law == "step" and self.begin > 0:
            raise ConfigError(f"a step is at one place, @{shortest(self.until)}: leave out {shortest(self.begin)}..")

    def __call__(self, progress: float) -> float:
        """Return the value at ``progress``, the finished share of the stage, clamped to [0, 1]."""
        if progress >= self.until:
            return self.end
        u = max(progress - self.begin, 0.0) / (self.until - self.begin)
        if self.law == "exp":
            return self.start ** (1.0 - u) * self.end**u
        laws = {"linear": u, "sqrt": math.sqrt(u), "cosine": 0.5 - 0.5 * math.cos(math.pi * u), "step": 0.0}
        bent = laws[self.law]
        return self.start * (1.0 - bent) + self.end * bent

    def __str__(self) -> str:
        law = "" if self.law == "linear" else f":{self.law}"
        span = f"{shortest(self.begin)}.." if self.begin else ""
        until = "" if self.until == 1.0 and not span else f"@{span}{shortest(self.until)}"
        if self.start == self.end and not law and not until:
            return shortest(self.start)
        return f"{shortest(self.start)}:{shortest(self.end)}{law}{until}"

    @classmethod
    def parse(cls, text: str | float) -> Ramp:
        """Read ``start[:end[:law]][@[begin..]until]`` or a plain number.

        Raises:
            ConfigError: the text has another form, or a value is not allowed.
        """
        body, at, span = str(text).partition("@")
        begin, _, until = span.partition("..") if ".." in span else ("0", "", span)
        start, *rest = body.split(":")
        if len(rest) > 2 or isinstance(text, bool):
            raise ConfigError(f"'{text}' is not a schedule; {SYNTAX}")
        try:
            ends = float(start), float(rest[0] if rest else start), float(until) if at else 1.0, float(begin)
        except ValueError:
            raise ConfigError(f"'{text}' is not a schedule; {SYNTAX}") from None
        law: Any = rest[1].strip() if len(rest) == 2 else "linear"
        return cls(ends[0], ends[1], law, *ends[2:])


def shortest(value: float) -> str:
    """Return the shortest text that reads back as ``value``, without a trailing ``.0``."""
    return repr(float(value)).removesuffix(".0")
