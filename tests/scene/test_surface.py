"""Points on triangles: on them, even by area, the same for the same generator; and the two spaces of colour."""

import numpy as np
import pytest
import torch

from gsdistill.scene.surface import SurfacePoints, sample_surface, to_linear, to_srgb


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def triangles(count=40, seed=1):
    return torch.randn(count, 3, 3, generator=generator(seed), dtype=torch.float64)


def areas(corners):
    a, b, c = corners.numpy().transpose(1, 0, 2)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def test_each_triangle_gets_its_share_of_the_points():
    corners = triangles()
    corners[7] = corners[7, :1]  # no area
    found = sample_surface(corners, 2000, generator())
    counts = np.bincount(found.faces.numpy(), minlength=40)
    expected = 2000 * areas(corners) / areas(corners).sum()
    assert np.abs(counts - expected).max() <= 2 and counts[7] == 0


def test_points_are_uniform_in_a_triangle():
    corners = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]], dtype=torch.float64)
    found = sample_surface(corners, 8000, generator())
    weights = found.weights
    assert weights.min() >= 0 and torch.allclose(weights.sum(dim=1), torch.ones(8000, dtype=torch.float64))
    # each barycentric coordinate of a uniform point has the distribution 1 - (1 - w)^2, and two have covariance -1/36
    for axis in weights.T:
        steps = torch.arange(1, 8001) / 8000
        assert ((1 - (1 - axis.sort().values) ** 2) - steps).abs().max() < 0.0183  # the 1 % bound, 1.63 / sqrt(8000)
    assert torch.cov(weights.T)[0, 1] == pytest.approx(-1 / 36, abs=2e-3)
    assert torch.allclose(found.of(corners)[:, :2], weights[:, 1:])


def test_the_generator_decides():
    first, second, other = (sample_surface(triangles(), 100, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.weights, second.weights) and torch.equal(first.faces, second.faces)
    assert not torch.equal(first.weights, other.weights)


def test_interpolation_is_exact_for_what_is_linear():
    corners = triangles()
    found = sample_surface(corners, 500, generator())
    slope = torch.tensor([[1.0, 2.0], [-3.0, 0.5], [0.25, 4.0]], dtype=torch.float64)
    assert torch.allclose(found.of(corners @ slope), found.of(corners) @ slope)
    one = SurfacePoints(torch.tensor([3]), torch.tensor([[0.0, 1.0, 0.0]]))
    assert torch.equal(one.of(corners)[0], corners[3, 1])


@pytest.mark.parametrize("corners", [torch.zeros(0, 3, 3), torch.ones(5, 3, 3), torch.full((5, 3, 3), float("nan"))])
def test_nothing_to_sample(corners):
    with pytest.raises(ValueError, match="no area"):
        sample_surface(corners, 10, generator())


def test_the_curve_of_srgb():
    linear = torch.linspace(0, 1, 1001, dtype=torch.float64)
    srgb = to_srgb(linear)
    assert torch.allclose(to_linear(srgb), linear, atol=1e-7)
    assert srgb[0] == 0 and abs(srgb[-1] - 1) < 1e-12 and (srgb.diff() > 0).all()
    # the standard's own figures: middle grey 18 % is 118 of 255, and the straight part's slope is 12.92
    assert round(255 * float(to_srgb(torch.tensor(0.18)))) == 118
    assert float(to_srgb(torch.tensor(0.001))) == pytest.approx(0.01292)
