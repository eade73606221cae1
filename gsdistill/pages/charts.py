"""The coordinates of a page's curves and bars, with which charts.html draws them as inline SVG.

A curve of positive values that span a factor of twenty or more has a logarithmic axis. Coordinates are those of the SVG
view box: x grows from the first to the last step, and larger values are higher up. A missing value leaves a gap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gsdistill.pages.markup import readable

__all__ = ["bar", "curve", "ticks"]

COLOURS = 8  # of the parts of a bar; page.css defines them
LEFT, RIGHT, TOP, BOTTOM = 40, 304, 10, 150  # of the axes, in a drawing of 320 x 184: charts.html has them too
LOGARITHMIC = 20.0  # least ratio of the largest to the smallest value on a logarithmic axis


@dataclass(frozen=True)
class Scale:
    """A map from values to coordinates, linear in the value or in its logarithm."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The coordinate of a value."""
        low, high, here = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (here - low) / (high - low)


def curve(
    title: str, steps: Sequence[int], values: Sequence[float | None], seconds: Sequence[float | None]
) -> dict[str, Any]:
    """The variables of charts.html for the curve of one figure over the steps of a run.

    Args:
        title: the figure's name.
        steps: ascending; the first and the last differ.
        values: one for each step, at least two of them finite numbers, the others None.
        seconds: since the first step; None where they are not known.
    """
    present = [value for value in values if value is not None]
    x, y = Scale(steps[0], steps[-1], LEFT, RIGHT), _vertical(present)
    points = [
        [step, value, at, *((round(x(step), 1), round(y(value), 1)) if value is not None else ())]
        for step, value, at in zip(steps, values, seconds, strict=True)
    ]
    first, last, least, most = map(readable, (present[0], present[-1], min(present), max(present)))
    whole = filter(float.is_integer, map(float, ticks(x.low, x.high, logarithmic=False)))
    return {
        "title": title,
        "last": last,
        "summary": f"{title} from step {steps[0]} to {steps[-1]}: first {first}, last {last}, lowest {least}, "
        f"highest {most}",
        "points": json.dumps(points, separators=(",", ":")),
        "path": _path(points),
        "rows": [(round(y(value), 1), _brief(value)) for value in ticks(y.low, y.high, y.logarithmic)],
        "columns": [(round(x(value), 1), _brief(value)) for value in whole],
    }


def bar(seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """The variables of charts.html for ``seconds`` by name as parts of a bar that is 100 wide."""
    total, start, parts = sum(seconds.values()), 0.0, []
    for place, (name, value) in enumerate(seconds.items()):
        width = 100.0 * value / total
        parts.append({"name": name, "seconds": value, "start": start, "width": width, "colour": place % COLOURS})
        start += width
    return parts


def ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    """Round numbers between ``low`` and ``high``: about four at equal steps, or some times powers of ten."""
    if logarithmic:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        factors = (1,) if last - first > 3 else (1, 3) if last - first > 2 else (1, 2, 5)
        marks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    else:
        rough = (high - low) / 4
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        marks = [step * place for place in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [value for value in marks if low <= value <= high]


def _vertical(values: Sequence[float]) -> Scale:
    low, high = min(values), max(values)
    if low > 0 and high / low >= LOGARITHMIC:
        return Scale(low / 1.2, high * 1.2, BOTTOM, TOP, logarithmic=True)
    if low > 0 and high < 2 * low:  # a narrow band far from zero keeps its detail
        room = 0.1 * (high - low) or 0.1 * high
        return Scale(low - room, high + room, BOTTOM, TOP)
    low, high = min(low, 0.0), max(high, 0.0)
    return Scale(low, (high - low or 1.0) * 1.08 + low, BOTTOM, TOP)


def _brief(value: float) -> str:
    """The text of a tick, such as 20k for 20,000."""
    size, letter = (1e6, "M") if abs(value) >= 1e6 else (1e3, "k") if abs(value) >= 1e4 else (1.0, "")
    return f"{value / size:.4g}{letter}"


def _path(points: Sequence[Sequence[float | None]]) -> str:
    """The SVG path through the points, with gaps where a value is missing; a point alone is a dot."""
    strokes: list[list[str]] = [[]]
    for _, value, _, *place in points:
        if value is None:
            strokes.append([])
        else:
            strokes[-1].append(f"{place[0]} {place[1]}")
    return "".join(f"M{'L'.join(stroke if len(stroke) > 1 else stroke * 2)}" for stroke in strokes if stroke)
