"""Axes and numbers of the charts against closed forms."""

from __future__ import annotations

import json

import pytest

from gsdistill.pages.charts import curve, ticks
from gsdistill.pages.markup import readable


@pytest.mark.parametrize(
    ("low", "high", "logarithmic", "expected"),
    [
        (0, 10, False, [0, 5, 10]),
        (0, 300, False, [0, 100, 200, 300]),
        (-1, 1, False, [-1, -0.5, 0, 0.5, 1]),
        (1, 300, False, [100, 200, 300]),
        (20, 3000, True, [30, 100, 300, 1000, 3000]),
        (1, 40, True, [1, 2, 5, 10, 20]),
        (1e-3, 1e3, True, [1e-3, 1e-2, 1e-1, 1, 10, 100, 1000]),
    ],
)
def test_ticks_are_round(low, high, logarithmic, expected):
    assert ticks(low, high, logarithmic) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0, "0"),
        (554, "554"),
        (2400, "2,400"),
        (0.96365, "0.964"),
        (11.06, "11.1"),
        (999.7, "1,000"),
        (-2e300, "-2e+300"),
    ],
)
def test_numbers_for_people(value, text):
    assert readable(value) == text


@pytest.mark.parametrize(
    "values", [[5.0, 5.0, 5.0], [0.0, 0.0, 0.0], [-3.0, 2.0, -1.0], [1.0, 1e6, 1e-6], [-1e300, 1e300, 0.0]]
)
def test_every_point_lies_between_the_axes(values):
    points = json.loads(curve("x", [1, 2, 3], values, [None] * 3)["points"])
    assert [point[3] for point in points] == [40.0, 172.0, 304.0]
    assert all(10.0 <= point[4] <= 150.0 for point in points)
    order = sorted(range(3), key=lambda place: values[place])
    heights = [points[place][4] for place in order]
    assert heights == sorted(heights, reverse=True)
