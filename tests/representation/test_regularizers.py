"""Penalties by hand, and their directions."""

from __future__ import annotations

import math

import pytest
import torch

from gsdistill.core.structs import Gaussians, Render
from gsdistill.representation.regularizers import RegularizerSettings, penalty
from gsdistill.settings.ramp import Ramp


@pytest.fixture
def scene() -> tuple[Gaussians, Render]:
    scales = torch.tensor([[0.0, -1.0, -2.0], [math.log(0.5), -3.0, -3.0]])
    gaussians = Gaussians(torch.zeros(2, 3), torch.ones(2, 4), scales, torch.zeros(2), torch.zeros(2, 1, 3))
    alphas = torch.tensor([0.0, 0.5, 1.0, 0.1]).reshape(1, 2, 2, 1)
    images = torch.zeros(1, 2, 2, 3)
    return gaussians, Render(images, alphas, alphas, torch.zeros(1, 2, 2), torch.ones(1, 2, dtype=torch.int32))


def test_each_term_by_hand(scene):
    for name, expected in (("opacity", 0.4), ("entropy", (0.25 + 0.09) / 4), ("scale", (1.0 + 0.25) / 2)):
        settings = RegularizerSettings(**{name: Ramp(3.0, 3.0)})
        assert float(penalty(settings, 0.5, *scene)) == pytest.approx(3 * expected)


def test_off_is_zero_and_schedules_are_followed(scene):
    assert float(penalty(RegularizerSettings(), 0.0, *scene)) == 0.0
    falling = RegularizerSettings(opacity=Ramp(10.0, 0.0))
    assert float(penalty(falling, 0.5, *scene)) == pytest.approx(5 * 0.4)
    assert float(penalty(falling, 1.0, *scene)) == 0.0
