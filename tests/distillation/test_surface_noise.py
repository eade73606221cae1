"""Noise on the surface: its independent derivation, white in a view, and the same for one place from near views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from distillation.derived import surface as derived

from gsdistill.core.structs import Cameras
from gsdistill.distillation import surface_noise, worldmap
from gsdistill.distillation.base import Surface
from gsdistill.distillation.surface_noise import ball, corners, draw, mean_points, sample
from gsdistill.scene.viewpoints import look_at_origin

NUMBERS = np.load(Path(__file__).parent / "derived" / "numbers.npz")
VIEWS = ((20, 0.1), (35, 0.1), (200, 0.3))  # of the numbers: azimuth and bump


def looking(azimuths: list[float], elevations: list[float], size: int) -> Cameras:
    a, e = (torch.tensor(angles, dtype=torch.float64) for angles in (azimuths, elevations))
    return look_at_origin(a, e, torch.full_like(a, 3.2), torch.full_like(a, 40.0), size)


def rays(cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
    """Where cameras [B, 3] are, where their pixels look [B, H, W, 3] by one unit along the axis, from the angles."""
    a, e = (torch.deg2rad(angle.double()) for angle in (cameras.azimuths, cameras.elevations))
    out = torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()], -1)
    right = torch.stack([-a.sin(), a.cos(), 0 * a], -1)
    down = torch.stack([e.sin() * a.cos(), e.sin() * a.sin(), -e.cos()], -1)
    line = (2 * (torch.arange(cameras.width).double() + 0.5) / cameras.width - 1) * np.tan(np.radians(20))
    across = line[None, None, :, None] * right[:, None, None]
    return 3.2 * out, across + line[None, :, None, None] * down[:, None, None] - out[:, None, None]


def seen_ball(cameras: Cameras, radius: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Depths and opacities of an opaque ball around the origin."""
    position, ray = rays(cameras)
    b, aa = (ray * position[:, None, None]).sum(-1), ray.square().sum(-1)
    inside = b.square() - aa * (3.2**2 - radius**2)
    z = torch.where(inside > 0, (-b - inside.clamp_min(0).sqrt()) / aa, 0.0)
    return z[..., None], (inside > 0).double()[..., None]


def test_is_its_derivation():
    chance = np.random.default_rng(77)
    textures, background = chance.standard_normal((6, 4, 64, 64, 4)), chance.standard_normal((4, 8, 8))
    points, alphas = zip(*(derived.field(*view) for view in VIEWS), strict=True)
    surface = mean_points(torch.tensor(np.array(points)), torch.tensor(np.array(alphas)), (8, 8))
    noise, count = sample(torch.tensor(textures), surface)
    for view in range(3):
        assert np.array_equal(count[view, 0].numpy(), NUMBERS[f"surface_count{view}"])
        ours = np.where(count[view].numpy() > 0, noise[view].numpy(), background)
        np.testing.assert_allclose(ours, NUMBERS[f"surface_noise{view}"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("stride", [3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_is_its_derivation_on_any_points(seed, stride):
    """Radii of all shells and beyond the last, jumps of depth, and holes; latents of 6 x 8."""
    chance, size = np.random.default_rng(seed), (6 * stride, 8 * stride)
    points, alphas = (field[: size[0]] for field in derived.field(60 * seed, 0.05, size[1]))
    jumps = chance.choice([0.3, 0.55, 1.0, 1.45, 1.6, 1.7], (3, 2))
    points = points * np.kron(jumps, np.ones((2 * stride, 4 * stride)))[..., None]
    points = points * (1 + 0.03 * chance.standard_normal((*size, 1)))
    alphas = alphas * (chance.uniform(size=size) > 0.15)
    textures = chance.standard_normal((6, 4, 48, 48, 2))
    expected, number = derived.surface_noise(points, alphas, textures, np.zeros((2, 6, 8)))
    surface = mean_points(torch.tensor(points)[None], torch.tensor(alphas)[None], (6, 8))
    noise, count = sample(torch.tensor(textures), surface)
    assert np.array_equal(count[0, 0].numpy(), number)
    assert number.sum() > 300
    assert 0 < (number == 0).sum() < 40
    np.testing.assert_allclose(noise[0].numpy(), expected, rtol=0, atol=1e-9)


def test_places_are_those_of_the_derivation_at_equal_area():
    directions = torch.tensor(NUMBERS["surface_directions"])
    for number, chart in enumerate(derived.CHARTS):
        place = surface_noise._square(directions[:, chart[:3]], directions.norm(dim=1))
        np.testing.assert_allclose(place.numpy(), NUMBERS[f"surface_chart{number}"][:, :2], rtol=0, atol=1e-12)
    even = torch.randn(40000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    square = surface_noise._square(even, even.norm(dim=1))
    counts = torch.histogramdd(square, [8, 8], range=[-1.0, 1.0, -1.0, 1.0]).hist
    assert float(((counts - 625).square() / 625).sum()) < 63 + 5 * (2 * 63) ** 0.5  # chi square of 64 equal cells


@pytest.mark.parametrize(("height", "pixels"), [(8, 32), (8, 24), (6, 6), (4, 8)])
def test_corners_of_a_plane_are_where_their_rays_meet_it(height, pixels):
    """On a plane that faces the camera the mean over a window inside the picture is the point in its middle."""
    cameras = looking([0.0, 70.0, 200.0], [0.0, 35.0, -20.0], pixels)
    depth = torch.full((3, pixels, pixels, 1), 2.5)
    alphas = torch.full_like(depth, 0.7)
    surface = corners(0.7 * depth, alphas, cameras, (height, height))
    position, ray = rays(cameras)
    plane = position[:, None, None] + 2.5 * ray
    first, step = plane[:, :1, :1], pixels / height
    down, right = (plane[:, 1:2, :1] - first) * step, (plane[:, :1, 1:2] - first) * step
    middle = first - 0.5 / step * (down + right)
    line = torch.arange(height + 1).double()
    expected = middle + line[None, :, None, None] * down + line[None, None, :, None] * right
    inside = slice(1, -1)
    torch.testing.assert_close(surface.points[:, inside, inside], expected[:, inside, inside], rtol=0, atol=1e-5)
    torch.testing.assert_close(surface.alphas[:, inside, inside], torch.full_like(expected[:, inside, inside, 0], 0.7))
    torch.testing.assert_close(surface.alphas[:, 0, inside], torch.full_like(expected[:, 0, inside, 0], 0.35))
    torch.testing.assert_close(surface.alphas[:, 0, 0], torch.full_like(expected[:, 0, 0, 0], 0.175))


def test_corners_that_see_a_ball_lie_on_it_and_others_are_not_covered():
    cameras = looking([0.0, 100.0], [10.0, -40.0], 128)
    depths, alphas = seen_ball(cameras, 0.6)
    surface = corners(depths, alphas, cameras, (16, 16))
    whole = surface.alphas > 0.999
    radius = surface.points.norm(dim=-1)
    assert int(whole.sum()) > 60
    assert float((radius[whole] - 0.6).abs().max()) < 0.02
    assert not surface.points[surface.alphas < 1e-9].any()


def test_is_white_in_a_view():
    """Variance 1 and no correlation between the pixels of a view, by 800 channels, which are independent."""
    cameras = looking([20.0], [15.0], 64)
    surface = corners(*seen_ball(cameras, 0.85), cameras, (8, 8))
    textures = draw((800, 8, 8), 6, torch.Generator().manual_seed(1), torch.float32)
    noise, count = sample(textures, surface)
    covered = count[0, 0] > 0
    assert 16 <= int(covered.sum()) < 64
    draws = noise[0][:, covered].double()
    covariance = draws.T @ draws / 800
    assert float((covariance - torch.eye(len(covariance))).abs().max()) < 5 * (2 / 800) ** 0.5
    assert abs(float(draws.var()) - 1) < 5 * (2 / draws.numel()) ** 0.5
    assert not noise[0][:, ~covered].any()


def test_one_texel_has_one_owner():
    """In a ball whose radii are all the same, texels of both half spheres lie on each other, equally far away."""
    surface = ball(looking([30.0, 75.0], [0.0, 40.0], 8), (8, 8))
    ones = torch.ones(6, 4, 64, 64, 1)
    noise, count = sample(ones, surface)
    torch.testing.assert_close(noise, count.float().sqrt())  # that many texels, each of weight 1 / sqrt(count)
    assert int(count.flatten(1).sum(1).max()) <= 6 * 64 * 64
    only = torch.zeros_like(ones)
    for chart in range(6):
        only.zero_()
        only[chart] = 1
        sums = sample(only, surface)[0] * count.sqrt()
        assert float(sums.flatten(1).sum(1).max()) <= 64 * 64 + 0.1


def warped(noise: torch.Tensor, cameras: Cameras, radius: float) -> float:
    """Correlation of the second view's noise with the first's where both show the same place of a ball, to a pixel."""
    size = noise.shape[-1]
    position, ray = rays(looking(cameras.azimuths.tolist(), cameras.elevations.tolist(), size))
    depths, alphas = seen_ball(looking(cameras.azimuths.tolist(), cameras.elevations.tolist(), size), radius)
    points = (position[:, None, None] + depths * ray)[1]
    view, k = cameras.viewmats[0].double(), cameras.Ks[0].double() * (size / cameras.width)
    there = points @ view[:3, :3].T + view[:3, 3]
    column = k[0, 0] * there[..., 0] / there[..., 2] + k[0, 2] - 0.5
    row = k[1, 1] * there[..., 1] / there[..., 2] + k[1, 2] - 0.5
    near = (column - column.round()).abs().maximum((row - row.round()).abs()) < 0.2
    facing = (points * position[0]).sum(-1) > 0.4 * radius * 3.2
    both = near & facing & (alphas[1, ..., 0] > 0)
    first = noise[0][:, row.round().long()[both], column.round().long()[both]]
    return float(torch.corrcoef(torch.stack([first.flatten(), noise[1][:, both].flatten()]))[0, 1])


@pytest.mark.parametrize(("turn", "at_least"), [(10.0, 0.65), (25.0, 0.6)])
def test_a_place_has_the_same_noise_from_neighbouring_views(turn, at_least):
    """Pixels that show the same place share most of their texels; the windows of FSD's sheet move past the surface."""
    cameras = looking([40.0, 40.0 + turn], [20.0, 20.0 + 0.4 * turn], 128)
    surface = corners(*seen_ball(cameras, 0.8), cameras, (32, 32))
    generator = torch.Generator().manual_seed(3)
    on_surface, _ = sample(draw((8, 32, 32), 8, generator, torch.float32), surface)
    sheet = worldmap.crop(worldmap.draw((8, 32, 32), 180.0, generator), (8, 32, 32), cameras)
    assert warped(on_surface, cameras, 0.8) > at_least
    assert abs(warped(sheet, cameras, 0.8)) < 0.15


def test_a_still_view_has_the_same_noise_at_every_step_and_other_sides_have_other_noise():
    cameras = looking([0.0, 0.0, 180.0], [0.0, 0.0, 0.0], 64)
    surface = corners(*seen_ball(cameras, 0.8), cameras, (16, 16))
    noise, count = sample(draw((8, 16, 16), 8, torch.Generator().manual_seed(3), torch.float32), surface)
    assert torch.equal(noise[0], noise[1])
    both = (count[0] > 0) & (count[2] > 0)
    pair = torch.stack([noise[view][:, both[0]].flatten() for view in (0, 2)])
    assert abs(float(torch.corrcoef(pair)[0, 1])) < 5 / pair.shape[1] ** 0.5


def test_many_pieces_and_half_the_precision_change_nothing(monkeypatch):
    surface = ball(looking([30.0, 75.0], [0.0, 40.0], 8), (8, 8))
    textures = draw((3, 8, 8), 16, torch.Generator().manual_seed(0), torch.float32)
    noise, count = sample(textures, surface)
    halved = sample(textures.half(), surface)[0]
    assert halved.dtype == torch.float32
    torch.testing.assert_close(halved, noise, rtol=0, atol=4e-3)
    monkeypatch.setattr(surface_noise, "AT_ONCE", 1000)
    again, counted = sample(textures, surface)
    assert torch.equal(count, counted)
    torch.testing.assert_close(again, noise, rtol=0, atol=1e-5)


def test_an_empty_view_has_no_noise():
    nothing = Surface(torch.zeros(2, 5, 5, 3), torch.zeros(2, 5, 5))
    noise, count = sample(draw((3, 4, 4), 4, torch.Generator(), torch.float32), nothing)
    assert noise.shape == (2, 3, 4, 4)
    assert not noise.any()
    assert not count.any()
