"""Where a scene lies and what it shows, against what a person would compute."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from export.scenes import pebble

from gsdistill.core.structs import RenderOptions
from gsdistill.scene.extent import UnitBall, shown_area, weighted_quantile


def test_a_ball_of_a_scene_becomes_the_unit_ball_and_back():
    scene = pebble(50, 0)
    ball = UnitBall((5.0, -7.0, 2.0), 4.0)
    inside = ball.inside(scene)
    torch.testing.assert_close(inside.means, (scene.means - torch.tensor([5.0, -7.0, 2.0])) / 4.0)
    torch.testing.assert_close(inside.scales.exp(), scene.scales.exp() / 4.0)
    torch.testing.assert_close(ball.to_world(inside.means), scene.means.double(), atol=1e-6, rtol=0)
    assert inside.means.dtype == inside.scales.dtype == torch.float32
    same = UnitBall().inside(scene).tensors()
    assert all(torch.equal(same[name], value) for name, value in scene.tensors().items())


def test_a_scene_that_was_moved_forgets_where_its_cameras_stood():
    scene = replace(pebble(5, 0), options=RenderOptions(near=3.0, far=7.0, antialiased=True))
    assert UnitBall(radius=2.0).inside(scene).options == RenderOptions(antialiased=True)


def test_a_ball_shows_the_square_of_its_deviation_times_its_opacity_and_an_ellipsoid_that_of_its_volume():
    logits = torch.tensor([0.0, math.log(3.0)])
    scales = torch.tensor([[0.5, 0.5, 0.5], [2.0, 0.25, 0.25]]).log()
    torch.testing.assert_close(shown_area(logits, scales), torch.tensor([0.5 * 0.25, 0.75 * 0.25]))


def test_a_weighted_quantile_is_that_of_repeated_values():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=40), rng.integers(1, 6, 40)
    repeated = np.sort(np.repeat(values, weights))
    for share in (0.001, 0.25, 0.5, 0.95, 1.0):
        truth = repeated[math.ceil(share * len(repeated)) - 1]
        assert weighted_quantile(torch.tensor(values), torch.tensor(weights, dtype=torch.float64), share) == truth
