"""The moving average against its closed forms."""

from __future__ import annotations

from math import comb

import pytest
import torch
from torch import nn

from gsdistill.learning.ema import Average


class Numbers(nn.Module):
    """One weight and one counter."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value], dtype=torch.float64))
        self.register_buffer("count", torch.tensor(0))

    def set(self, value: float, count: int) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
            self.count.fill_(count)


def test_while_it_is_short_the_start_is_forgotten_as_a_binomial():
    """From 1 with all later weights 0, what is left after n updates is 1 / binomial(n + 9, 9)."""
    model = Numbers(1.0)
    average = Average(model, 0.9999)
    model.set(0.0, 3)
    for n in range(1, 40):
        average.update(model)
        assert average.weights["weight"].item() == pytest.approx(1.0 / comb(n + 9, 9), rel=1e-12)
    assert average.weights["count"].item() == 3


def test_at_its_full_length_it_lags_behind_a_line_by_d_over_one_minus_d():
    """Of weights t = 0, 1, 2, ... the average tends to t - d / (1 - d)."""
    model, d = Numbers(0.0), 0.9
    average = Average(model, d)
    for t in range(1, 400):
        model.set(float(t), t)
        average.update(model)
    assert average.weights["weight"].item() == pytest.approx(399 - d / (1 - d), rel=1e-12)


def test_no_decay_is_the_weights_themselves():
    model = Numbers(1.0)
    average = Average(model, 0.0)
    model.set(5.0, 1)
    average.update(model)
    assert average.weights["weight"].item() == 5.0
