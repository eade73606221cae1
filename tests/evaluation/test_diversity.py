"""Saturation, features and Frechet distances against closed forms."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch

from gsdistill.evaluation.diversity import (
    SCALES,
    features,
    frechet,
    frechet_between,
    raw_features,
    rms_between,
    saturation,
)
from gsdistill.evaluation.views import Pictures, held_out, truth
from gsdistill.worlds.base import Thing, paint, world_named
from gsdistill.worlds.shapes.captions import COLORS, SHAPES
from gsdistill.worlds.shapes.raycast import trace
from gsdistill.worlds.shapes.world import build


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(colour: tuple[float, float, float], size: int = 16, alpha: float = 1.0) -> Pictures:
    """Two pictures of one colour whose left half is empty."""
    there = torch.zeros(2, size, size, 1)
    there[:, :, size // 2 :] = alpha
    return Pictures(there * torch.tensor(colour), there)


def lit(light: torch.Tensor) -> Pictures:
    """One opaque picture in grey."""
    return Pictures(light[None, ..., None].expand(1, *light.shape, 3).float(), torch.ones(1, *light.shape, 1))


@pytest.mark.parametrize(
    ("colour", "expected"),
    [((1.0, 0.0, 0.0), 1.0), ((0.8, 0.4, 0.2), 0.75), ((0.4, 0.4, 0.4), 0.0), ((0.0, 0.0, 0.0), 0.0)],
)
def test_saturation_is_that_of_the_colour_where_the_object_is(colour, expected):
    assert saturation(plain(colour)) == pytest.approx(expected, abs=1e-6)
    assert saturation(plain(colour, alpha=0.9)) == pytest.approx(expected, abs=1e-6)
    assert saturation(plain(colour, alpha=0.4)) == 0.0


def test_rms_of_two_colours_and_the_mean_over_pairs():
    """Over grey the left half is equal; on the right every channel differs by 0.2, 0.4 or 0.6."""
    dark, middle, light = (plain((value,) * 3) for value in (0.1, 0.3, 0.7))
    root = math.sqrt(0.5)
    assert rms_between([dark, middle]) == pytest.approx(0.2 * root, abs=1e-6)
    assert rms_between([dark, middle, light]) == pytest.approx((0.2 + 0.4 + 0.6) / 3 * root, abs=1e-6)
    assert rms_between([dark, dark]) == 0.0
    assert rms_between([dark]) is rms_between([]) is frechet_between([dark]) is None


def test_frechet_of_sets_with_known_means_and_deviations():
    """Diagonal covariances: sum (m_a - m_b)^2 + (d_a - d_b)^2."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)  # identity covariance
    d_a, d_b = (torch.tensor(d, dtype=torch.float64) for d in ([1.0, 2.0, 0.5, 0.0], [3.0, 2.0, 0.1, 0.7]))
    move = torch.tensor([0.3, -1.0, 0.0, 2.0], dtype=torch.float64)
    expected = float((move**2).sum() + ((d_a - d_b) ** 2).sum())
    assert frechet(corners * d_a, corners * d_b + move) == pytest.approx(expected, abs=1e-9)


def test_frechet_agrees_with_a_general_matrix_root():
    a, b = normal(40, 6, seed=1) @ normal(6, 6, seed=2), normal(50, 6, seed=3) @ normal(6, 6, seed=4) + 0.5
    first, second = (torch.cov(x.T, correction=0) for x in (a, b))
    values, vectors = torch.linalg.eig(first @ second)
    root = (vectors @ torch.diag(values.sqrt()) @ torch.linalg.inv(vectors)).real
    torch.testing.assert_close(root @ root, first @ second)
    expected = (a.mean(0) - b.mean(0)).square().sum() + (first + second - 2 * root).trace()
    assert frechet(a, b) == pytest.approx(float(expected), rel=1e-9)
    scipy = pytest.importorskip("scipy.linalg")
    trace = scipy.sqrtm((first @ second).numpy()).real.trace()
    assert float(root.trace()) == pytest.approx(trace, rel=1e-9)


def test_frechet_is_a_squared_distance_of_distributions():
    a, b = normal(40, 5, seed=5), 1.5 * normal(40, 5, seed=6) + 0.2
    turn, _ = torch.linalg.qr(normal(5, 5, seed=7))
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-9)
    assert frechet(a @ turn + 3.0, b @ turn + 3.0) == pytest.approx(frechet(a, b), rel=1e-9)
    assert frechet(3.0 * a, 3.0 * b) == pytest.approx(9.0 * frechet(a, b), rel=1e-9)
    assert frechet(a, a[torch.randperm(40)]) == pytest.approx(0.0, abs=1e-9)
    assert frechet(a, a + 2.0) == pytest.approx(5 * 4.0, rel=1e-9)


def test_features_of_a_plain_object():
    found = raw_features(plain((0.8, 0.4, 0.2)))[0]
    expected = torch.tensor([0.5, 0.8, 0.4, 0.2, 0.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found[:7], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("degrees", "shares"), [(0, [1, 0, 0, 0]), (90, [0, 0, 1, 0]), (180, [1, 0, 0, 0]),
                                                 (45, [0, 1, 0, 0]), (-45, [0, 0, 0, 1]), (22.5, [0.5, 0.5, 0, 0]),
                                                 (-22.5, [0.5, 0, 0, 0.5])])  # fmt: skip
def test_gradients_fall_into_their_bins(degrees, shares):
    across, along = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    found = raw_features(lit(0.5 + 0.02 * (across * x + along * y)))[0, 7:]
    torch.testing.assert_close(found, 0.02 * torch.tensor(shares, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_features_are_in_units_of_the_world():
    """SCALES are the standard deviations over all single objects, here seen by every fourth camera."""
    cameras = held_out()
    batched = [field.name for field in fields(cameras) if field.name not in ("width", "height")]
    cameras = replace(cameras, **{name: getattr(cameras, name)[::4] for name in batched})
    seen = []
    for shape in SHAPES:
        light = trace(build((Thing("white", shape),)).parts, cameras)
        for color in COLORS.values():
            seen.append(features(Pictures(*paint(light, torch.tensor([color]), torch.zeros(len(cameras), 3)))))
    deviations = torch.cat(seen).std(0, correction=0)
    assert len(SCALES) == len(deviations)
    assert float(deviations.min()) > 0.9
    assert float(deviations.max()) < 1.1


@pytest.mark.slow
def test_frechet_between_seeds_is_the_mean_over_pairs():
    pictures = [truth(world_named("shapes"), (Thing("red", shape),)) for shape in ("cube", "sphere", "cone")]
    one, two, three = (features(seen) for seen in pictures)
    expected = (frechet(one, two) + frechet(one, three) + frechet(two, three)) / 3
    assert frechet_between(pictures) == pytest.approx(expected, rel=1e-12)
    assert frechet_between([pictures[0], pictures[0]]) == pytest.approx(0.0, abs=1e-6)
