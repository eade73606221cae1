"""The three starts that favour no shape: in a ball, on a sphere, in a box."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from gsdistill.core.errors import ConfigError
from gsdistill.core.structs import SH_C0
from gsdistill.scene.init.ball import Ball
from gsdistill.scene.init.box import Box
from gsdistill.scene.init.sphere import Sphere
from gsdistill.settings.config import from_dict

KINDS = [Ball, Sphere, Box]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ks_distance(values: torch.Tensor) -> float:
    """Kolmogorov-Smirnov distance of values in 0..1 from the uniform distribution."""
    steps = torch.arange(1, len(values) + 1) / len(values)
    return (values.sort().values - steps).abs().max().item()


def test_the_ball_is_filled_uniformly():
    means = Ball(count=4000, radius=0.6).create("", generator()).means / 0.6
    radii = means.norm(dim=-1)
    assert radii.max() <= 1 + 1e-6
    assert ks_distance(radii**3) < 0.03  # 1.63 / sqrt(4000) is the 1 % bound
    assert ks_distance((means[:, 2] / radii + 1) / 2) < 0.03  # the height of a uniform direction is uniform
    assert ks_distance(torch.atan2(means[:, 1], means[:, 0]) / (2 * torch.pi) + 0.5) < 0.03


def test_the_sphere_is_covered_uniformly_and_nothing_is_inside():
    means = Sphere(count=4000, radius=0.4).create("", generator()).means / 0.4
    assert torch.allclose(means.norm(dim=-1), torch.ones(4000))
    assert ks_distance((means[:, 2] + 1) / 2) < 0.03  # Archimedes
    assert ks_distance(torch.atan2(means[:, 1], means[:, 0]) / (2 * torch.pi) + 0.5) < 0.03


def test_the_box_is_filled_uniformly():
    size = torch.tensor([0.2, 0.5, 0.7])
    means = Box(count=4000, size=(0.2, 0.5, 0.7)).create("", generator()).means
    assert (means.abs() <= size).all()
    assert all(ks_distance((axis + 1) / 2) < 0.03 for axis in (means / size).unbind(dim=1))
    covariance = torch.cov((means / size).T)
    assert torch.allclose(
        covariance, torch.eye(3) / 3, atol=0.03
    )  # a third of the square half-extent, axes independent


@pytest.mark.parametrize("seed", [0, 7])
def test_the_ball_and_the_sphere_are_these_numbers_bit_for_bit(seed):
    """What a run of an earlier version started from."""
    draw = generator(seed)
    directions = normalize(torch.randn(1000, 3, generator=draw), dim=-1)
    radii = torch.rand(1000, 1, generator=draw) ** (1 / 3)
    ball, sphere = (kind(count=1000, radius=0.37).create("", generator(seed)) for kind in (Ball, Sphere))
    assert torch.equal(ball.means, 0.37 * radii * directions)
    assert torch.equal(sphere.means, 0.37 * directions)
    assert torch.equal(ball.scales, torch.full((1000,), 0.77 * 0.37 * 1000 ** (-1 / 3)).log()[:, None].repeat(1, 3))
    assert torch.equal(ball.opacities, torch.full((1000,), 0.2).logit())


@pytest.mark.parametrize(
    ("initialiser", "share"),
    [
        (Ball(count=1000, radius=0.5, scale=0.8), 0.5 / 10),
        (Sphere(count=400, radius=0.5, scale=0.8), 2 * 0.5 / 20),
        (Box(count=1000, size=(0.2, 0.4, 0.6), scale=0.8), (6 * 0.048 / (math.pi * 1000)) ** (1 / 3)),
    ],
)
def test_the_deviation_is_that_of_an_equal_share(initialiser, share):
    scene = initialiser.create("", generator())
    assert torch.allclose(scene.scales.exp(), torch.full((len(scene), 3), 0.8 * share))


def test_a_box_and_a_ball_of_one_volume_get_one_size():
    half = (4 / 3 * math.pi * 0.5**3 / 8) ** (1 / 3)
    ball, box = Ball(radius=0.5).create("", generator()), Box(size=(half,) * 3).create("", generator())
    assert torch.allclose(ball.scales[0], box.scales[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("degree", [0, 3])
def test_parameters_decode_to_the_settings(kind, degree):
    scene = kind(count=100, opacity=0.3, color=0.7, sh_degree=degree).create("", generator())
    assert len(scene) == 100 and scene.sh_degree == degree and scene.sh.shape == (100, (degree + 1) ** 2, 3)
    assert torch.allclose(scene.opacities.sigmoid(), torch.full((100,), 0.3))
    assert torch.allclose(0.5 + SH_C0 * scene.sh[:, 0], torch.full((100, 3), 0.7))
    assert not scene.sh[:, 1:].any()
    assert torch.equal(scene.quats, torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(100, 4))
    assert {tensor.dtype for tensor in scene.tensors().values()} == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_the_generator_alone_decides(kind):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = (kind(count=50).create("", generator(seed)).means for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_box_beyond_the_unit_ball_is_refused():
    with pytest.raises(
        ConfigError, match=r"init\.size = \[0\.5, 0\.6, 0\.7\] leaves the unit ball: its corner lies at 1\.05"
    ):
        from_dict(Box, {"size": [0.5, 0.6, 0.7]}, "init")
    with pytest.raises(ConfigError, match=r"init\.size\[1\] = 0.* must be greater than 0"):
        from_dict(Box, {"size": [0.5, 0.0, 0.7]}, "init")


def test_sizes_by_the_nearest_are_those_of_uniform_points_in_a_ball():
    """Inside, of the k-th nearest of uniform points the mean squared distance is r_N^2 G(k + 2/3) / G(k)."""
    scene = Ball(count=4000, radius=0.8, spacing="rms", scale=1.0).create("", generator())
    usual = Ball(count=4000, radius=0.8).create("", generator())
    assert torch.equal(scene.means, usual.means)
    inside = scene.means.norm(dim=-1) < 0.6
    squares = sum(math.gamma(k + 2 / 3) / math.gamma(k) for k in (1, 2, 3)) / 3
    found = scene.scales[inside, 0].exp().square().mean().sqrt() / (0.8 * 4000 ** (-1 / 3))
    assert abs(float(found) / squares**0.5 - 1) < 0.02
    with pytest.raises(ConfigError, match=r"init\.count = 3 is too few for init\.spacing = rms"):
        Box(count=3, spacing="rms")
