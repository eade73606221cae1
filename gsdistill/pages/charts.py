"""Curves and bars as inline SVG; the numbers behind a curve lie in its ``data-points``, where the script finds them.

A curve of positive values that spans a factor of twenty or more has a logarithmic axis. Coordinates are those of the
view box, x from the first to the last step, y upwards; a value that is not finite leaves a gap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gsdistill.pages.markup import Html, element, joined

__all__ = ["COLOURS", "Curve", "bar", "curve_figure", "shown", "ticks"]

COLOURS = 8  # of parts, in the style
WIDTH, HEIGHT = 320, 184
LEFT, RIGHT, TOP, BOTTOM = 40, 304, 10, 150
LOGARITHMIC = 20.0  # ratio of the largest to the smallest value from which on the axis is logarithmic


@dataclass(frozen=True)
class Curve:
    """One figure over the steps of a run."""

    title: str
    unit: str  # empty: a plain number
    steps: Sequence[int]
    values: Sequence[float | None]  # None where there is no finite value
    seconds: Sequence[float | None]  # since the first step


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


def shown(value: float) -> str:
    """A number for people: three digits of a fraction, thousands apart, powers of ten for what has no name."""
    if abs(value) >= 1e15:
        return f"{value:.3g}"
    if isinstance(value, int) or abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.3f}" if 0.001 <= abs(value) < 1 else f"{value:.3g}"


def curve_figure(curve: Curve) -> Html:
    """Draw a curve with its axes; it has at least two points with a finite value."""
    known = [value for value in curve.values if value is not None]
    y = _vertical(known)
    x = Scale(curve.steps[0], curve.steps[-1], LEFT, RIGHT)
    points = [
        [step, value, at, *((round(x(step), 1), round(y(value), 1)) if value is not None else ())]
        for step, value, at in zip(curve.steps, curve.values, curve.seconds, strict=True)
    ]
    unit = f" {curve.unit}" if curve.unit else ""
    last = f"{shown(known[-1])}{unit}"
    summary = f"{curve.title} from step {curve.steps[0]} to {curve.steps[-1]}: first {shown(known[0])}, last {last}, "
    summary += f"lowest {shown(min(known))}, highest {shown(max(known))}"
    svg = element(
        "svg",
        {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": summary, "tabindex": 0},
        _axes(x, y),
        element("path", {"class": "curve", "d": _path(points)}),
        element("line", {"class": "probe", "y1": TOP, "y2": BOTTOM}),
        element("circle", {"class": "probe", "r": 3.5}),
    )
    heading = element("b", {}, curve.title), element("output", {}, f"{last} at the end")
    data = {"data-points": json.dumps(points, separators=(",", ":")), "data-unit": curve.unit}
    return element("figure", {"class": "chart", **data}, element("figcaption", {}, *heading), svg)


def bar(shares: Mapping[str, float], label: str) -> Html:
    """Draw parts of a whole side by side; the i-th has the class ``part-i``, i modulo :data:`COLOURS`."""
    total, at, parts = sum(shares.values()), 0.0, []
    for place, (name, value) in enumerate(shares.items()):
        width = 100.0 * value / total
        title = element("title", {}, f"{name}: {width:.1f} %")
        box = {"class": f"part-{place % COLOURS}", "x": f"{at:.3f}", "width": f"{width:.3f}", "height": 10}
        parts.append(element("g", {}, title, element("rect", box)))
        at += width
    view = {"class": "bar", "viewBox": "0 0 100 10", "preserveAspectRatio": "none", "role": "img", "aria-label": label}
    return element("svg", view, *parts)


def ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    """Round numbers from ``low`` to ``high``: about four at equal steps, or 1, 2 and 5 times powers of ten."""
    if logarithmic:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        factors = (1,) if last - first > 3 else (1, 3) if last - first > 2 else (1, 2, 5)
        found = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    else:
        rough = (high - low) / 4
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        found = [step * place for place in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [value for value in found if low <= value <= high]


def _vertical(values: Sequence[float]) -> Scale:
    low, high = min(values), max(values)
    if low > 0 and high / low >= LOGARITHMIC:
        return Scale(low / 1.2, high * 1.2, BOTTOM, TOP, logarithmic=True)
    if low > 0 and high < 2 * low:  # a narrow band far from zero keeps its detail
        room = 0.1 * (high - low) or 0.1 * high
        return Scale(low - room, high + room, BOTTOM, TOP)
    low, high = min(low, 0.0), max(high, 0.0)
    return Scale(low, (high - low or 1.0) * 1.08 + low, BOTTOM, TOP)


def _axes(x: Scale, y: Scale) -> Html:
    parts = []
    for value in ticks(y.low, y.high, y.logarithmic):
        at = round(y(value), 1)
        parts.append(element("line", {"class": "grid", "x1": LEFT, "x2": RIGHT, "y1": at, "y2": at}))
        parts.append(element("text", {"x": LEFT - 6, "y": at + 4, "text-anchor": "end"}, _brief(value)))
    for value in filter(float.is_integer, map(float, ticks(x.low, x.high, logarithmic=False))):
        place = {"x": round(x(value), 1), "y": BOTTOM + 15, "text-anchor": "middle"}
        parts.append(element("text", place, _brief(value)))
    parts.append(element("line", {"class": "axis", "x1": LEFT, "x2": RIGHT, "y1": BOTTOM, "y2": BOTTOM}))
    parts.append(element("text", {"x": (LEFT + RIGHT) / 2, "y": BOTTOM + 31, "text-anchor": "middle"}, "step"))
    return joined(parts)


def _brief(value: float) -> str:
    """A tick's number: 20k for 20,000."""
    size, letter = (1e6, "M") if abs(value) >= 1e6 else (1e3, "k") if abs(value) >= 1e4 else (1.0, "")
    return f"{value / size:.4g}{letter}"


def _path(points: Sequence[Sequence[float | None]]) -> str:
    """SVG's path through the points, lifted where a value is missing; a point alone is a dot."""
    strokes: list[list[str]] = [[]]
    for _, value, _, *place in points:
        if value is None:
            strokes.append([])
        else:
            strokes[-1].append(f"{place[0]} {place[1]}")
    return "".join(f"M{'L'.join(stroke if len(stroke) > 1 else stroke * 2)}" for stroke in strokes if stroke)
