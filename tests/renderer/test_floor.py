"""The counted floor counts what the reference sees, and its tool refuses in a sentence what it cannot measure."""

from __future__ import annotations

import pytest
import torch
from renderer.scenes import ball, views
from tooling import tool

from gsdistill.renderer import reference
from gsdistill.renderer.base import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN


@pytest.fixture(scope="module")
def floor():
    return tool("bench/renderer_floor")


@pytest.mark.parametrize(("count", "size"), [(1, 0.3), (40, 0.1), (200, 0.2)])
def test_contributing_pairs_are_those_of_the_reference(floor, count, size):
    scene, cameras = ball(count, size=size), views(1)
    splats = reference.project(scene, cameras.viewmats[0], cameras.Ks[0], 27, 20)
    y, x = torch.meshgrid(torch.arange(20) + 0.5, torch.arange(27) + 0.5, indexing="ij")
    left, expected = torch.ones(20, 27), 0
    for mean, (a, b, c), opacity in zip(splats.means, splats.conics, splats.opacities, strict=True):
        dx, dy = x - mean[0], y - mean[1]
        alpha = opacity * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
        here = (alpha >= ALPHA_MIN) & (left > 0)
        behind = left * (1 - alpha.clamp_max(ALPHA_MAX))
        left = torch.where(here, torch.where(behind > TRANSMITTANCE_MIN, behind, 0.0), left)
        expected += int(here.sum())
    found = floor.counts(scene, cameras)
    assert found["contributing"] == pytest.approx(expected, abs=2)  # alphas at 1/255 may round to either side
    assert found["walked"] >= found["contributing"] > 0
    assert found["visible"] == len(splats.index)


def test_a_rate_is_that_of_a_processor(floor):
    found = floor.rates()
    assert 0 < found["forward"] < found["backward"]
