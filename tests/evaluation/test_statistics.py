"""Intervals against the theory of means and shares."""

from __future__ import annotations

import numpy as np
import pytest

from gsdistill.evaluation.statistics import Interval, bootstrap, wilson

Z = 1.959963984540054  # the normal distribution's 97.5 % quantile


def half_width(interval: Interval) -> float:
    return 0.5 * (interval.high - interval.low)


def test_one_seed_is_the_normal_interval_of_the_mean():
    values = np.random.default_rng(1).normal(3.0, 2.0, (400, 1))
    found = bootstrap(values)
    assert found.mean == pytest.approx(values.mean())
    assert half_width(found) == pytest.approx(Z * values.std() / 20.0, rel=0.03)
    assert found.low + found.high == pytest.approx(2.0 * found.mean, abs=0.02)


@pytest.mark.parametrize(("between", "within"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.3, 2.0)])
def test_prompts_and_seeds_both_count(between, within):
    """Resampling prompts, then seeds, has the variance  Var(prompt means) / P + mean(Var of seeds) / (P S)."""
    rng = np.random.default_rng(2)
    values = between * rng.normal(size=(200, 1)) + within * rng.normal(size=(200, 3))
    variance = values.mean(1).var() / 200 + values.var(1).mean() / 600
    assert half_width(bootstrap(values)) == pytest.approx(Z * variance**0.5, rel=0.03)


def test_missing_runs_leave_the_others():
    values = np.array([[1.0, 2.0, 3.0], [4.0, np.nan, 6.0], [np.nan] * 3, [np.nan, np.nan, 7.0]])
    found = bootstrap(values)
    assert found.mean == pytest.approx((2.0 + 5.0 + 7.0) / 3)
    assert 1.0 <= found.low < found.mean < found.high <= 7.0
    assert found == bootstrap(values[[0, 1, 3]])
    assert bootstrap(np.full((2, 2), np.nan)) is bootstrap(np.zeros((0, 3))) is None


def test_where_all_are_equal_there_is_no_doubt():
    assert bootstrap(np.full((3, 2), 0.5)) == Interval(0.5, 0.5, 0.5)


def test_the_order_of_seeds_is_no_matter_and_the_answer_repeats():
    values = np.random.default_rng(3).normal(size=(5, 3))
    assert bootstrap(values) == bootstrap(values[:, ::-1]) == bootstrap(values)


@pytest.mark.parametrize("right", [0, 3, 18, 35, 36])
def test_wilson_solves_its_equation(right):
    """Its ends are where the score test just rejects: |p - x| = z sqrt(x (1 - x) / n)."""
    found = wilson(right, 36)
    assert found.mean == right / 36
    for end in (found.low, found.high):
        assert abs(found.mean - end) == pytest.approx(Z * (end * (1 - end) / 36) ** 0.5, abs=1e-12)
    assert (found.low == 0) is (right == 0) and (found.high == 1) is (right == 36)


def test_wilson_of_five_in_ten_as_in_tables_and_of_nothing():
    found = wilson(5, 10)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2366, 0.7634)
    assert wilson(0, 0) is None
