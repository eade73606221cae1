"""Points on the surface: on it, even by area, and each of the part that it lies on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gsdistill.worlds.base import Thing
from gsdistill.worlds.shapes.captions import SHAPES
from gsdistill.worlds.shapes.solids import distances
from gsdistill.worlds.shapes.surface import nearest_parts, sample_surface
from gsdistill.worlds.shapes.world import build, every_layout

STACK = build((Thing("red", "sphere"), Thing("blue", "cube"))).parts


def of(shape: str) -> np.ndarray:
    return build((Thing("red", shape),)).parts


def drawn(parts: np.ndarray, count: int = 20_000) -> np.ndarray:
    return sample_surface(parts, count, np.random.default_rng(0))


@pytest.mark.parametrize("parts", [of("mug"), of("chair"), STACK], ids=["mug", "chair", "stack"])
def test_points_are_on_the_surface_of_the_union(parts):
    points = drawn(parts, 3_000)
    assert points.shape == (3_000, 3)
    assert np.abs(distances(parts, points)).max() < 1e-6


def test_a_sphere_is_covered_evenly():
    points = drawn(of("sphere"))
    assert np.linalg.norm(points, axis=1) == pytest.approx(0.75)
    tolerance = 5 * 0.75 / math.sqrt(len(points))
    assert np.abs(points.mean(axis=0)).max() < tolerance
    assert (points**2).mean(axis=0) == pytest.approx([0.75**2 / 3] * 3, abs=tolerance * 0.3)
    heights = np.sort(points[:, 2]) / 0.75  # even in z, by Archimedes
    assert np.abs(heights - np.linspace(-1, 1, len(heights))).max() < 0.04


def test_the_parts_of_a_cylinder_get_their_area():
    """Radius 0.5, height 1.3: the side has 2 pi r h of 2 pi r (h + r), away from the edges' band of 0.02."""
    points = drawn(of("cylinder"), 40_000)
    radius = np.hypot(points[:, 0], points[:, 1])
    side, top = radius > 0.4999, np.abs(points[:, 2]) > 0.6499
    assert bool((side | top).all())
    inner_side = (np.abs(points[:, 2]) < 0.6) & side
    inner_caps = (radius < 0.45) & top
    expected = (2 * math.pi * 0.5 * 1.2) / (2 * math.pi * 0.45**2)
    assert inner_side.sum() / inner_caps.sum() == pytest.approx(expected, rel=0.05)


def test_the_part_of_a_point_is_the_solid_it_lies_on():
    points = drawn(STACK, 4_000)
    found = nearest_parts(STACK, points)
    centre, radius = np.array([0.0, 0.0, STACK[0, 2]]), 0.75 * STACK[0, 1]
    on_the_sphere = np.abs(np.linalg.norm(points - centre, axis=1) - radius) < 1e-5
    assert 0.2 < on_the_sphere.mean() < 0.8
    assert bool((found[on_the_sphere] == 0).mean() > 0.995)  # the seam belongs to both
    assert bool((found[~on_the_sphere] == 1).all())


def test_a_generator_in_one_state_gives_one_set_of_points():
    one, two, other = (sample_surface(STACK, 50, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one == two).all() and not (one == other).all(axis=1).any()


def test_every_object_of_the_world_can_be_drawn():
    layouts = every_layout()
    assert len(layouts) == len(SHAPES) + 35
    for parts in list(layouts.values())[::7]:
        assert len(drawn(parts, 100)) == 100
