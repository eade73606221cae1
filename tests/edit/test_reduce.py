"""Fewer Gaussians with nearly the same pictures."""

import math
from dataclasses import replace

import pytest
import torch
from export.scenes import pebble, pictures, psnr

from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.edit.reduce import WIDER, framed, importance, reduced
from gsdistill.renderer.base import blending_weights, render
from gsdistill.scene.edit import join, moved, picked, scaled
from gsdistill.scene.viewpoints import orbit


def shell(count: int) -> Gaussians:
    """A closed sphere of equal Gaussians at equal distances, of all hues."""
    index = torch.arange(count) + 0.5
    z, turn = 1 - 2 * index / count, index * math.pi * (3 - math.sqrt(5))
    means = 0.8 * torch.stack([(1 - z * z).sqrt() * turn.cos(), (1 - z * z).sqrt() * turn.sin(), z], dim=1)
    return Gaussians(
        means=means,
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(count, 1),
        scales=torch.full((count, 3), math.log(1.6 / math.sqrt(count))),
        opacities=torch.full((count,), 3.0),
        sh=(0.4 * torch.sin(5.0 * means) / SH_C0)[:, None],
    )


def by_chance(gaussians: Gaussians, count: int) -> Gaussians:
    return picked(gaussians, torch.randperm(len(gaussians), generator=torch.Generator().manual_seed(0))[:count])


@pytest.mark.slow
@pytest.mark.parametrize("scene", [pebble(900, 1), shell(900)], ids=["of all sizes", "of equals"])
def test_the_more_are_kept_the_nearer_and_always_nearer_than_by_chance(scene):
    whole = pictures(scene, 64)
    found = [psnr(pictures(reduced(scene, n)[0], 64), whole) for n in (200, 800)]
    chance = [psnr(pictures(by_chance(scene, n), 64), whole) for n in (200, 800)]
    assert found[1] > found[0] + 6
    assert all(ours > theirs + 1 for ours, theirs in zip(found, chance, strict=True))


def test_those_that_stay_are_the_same_but_for_one_factor():
    scene = moved(scaled(shell(400), 7.0), (30.0, 0.0, -2.0))
    few, factor = reduced(scene, 150)
    assert len(few) == 150 and factor in WIDER and factor > 1.0
    places = [int((scene.means == mean).all(dim=1).nonzero()) for mean in few.means]
    assert places == sorted(places)
    same = picked(scene, torch.tensor(places))
    assert torch.allclose(few.scales, same.scales + math.log(factor))
    assert torch.equal(few.sh, same.sh) and torch.equal(few.opacities, same.opacities)


def test_what_is_not_more_stays_as_it_is():
    scene = pebble(20, 0)
    assert reduced(scene, 20) == (scene, 1.0) and reduced(scene, 1000) == (scene, 1.0)
    assert len(reduced(scene, 1)[0]) == 1 and len(reduced(scene, 19)[0]) == 19


def test_importance_does_not_ask_where_a_splat_is_and_how_large():
    scene = pebble(300, 0)
    away = moved(scaled(scene, 50.0), (300.0, -20.0, 7.0))
    assert torch.allclose(importance(framed(away)), importance(framed(scene)), rtol=1e-2, atol=1.0)


@pytest.mark.parametrize("field", ["means", "scales", "one mean", "one scale"])
def test_sizes_and_places_beyond_what_float32_squares_are_framed(field):
    scene = pebble(150, 0)
    far = {
        "means": {"means": scene.means * 1e35},
        "scales": {"scales": scene.scales + 97.0},
        "one mean": {"means": torch.cat([torch.full((1, 3), 3e38), scene.means[1:]])},
        "one scale": {"scales": torch.cat([torch.full((1, 3), 90.0), scene.scales[1:]])},
    }[field]
    away = replace(scene, **far)
    assert all(value.isfinite().all() and value.dtype == torch.float32 for value in framed(away).tensors().values())
    assert len(reduced(away, 100)[0]) == 100


@pytest.mark.slow
def test_a_kernel_within_a_shell_goes_first():
    both = join([scaled(shell(900), 0.2), shell(900)])
    weights = importance(framed(both))
    assert weights[:900].sum() < 0.01 * weights.sum()
    assert (reduced(both, 900)[0].means.norm(dim=1) > 0.5).all()


def test_weights_are_those_of_the_pixels():
    scene, cameras = pebble(40, 0), orbit(3, 24)
    white = replace(scene, sh=torch.full((40, 1, 3), 0.5 / SH_C0))
    with torch.no_grad():
        alphas = render(scene, cameras, torch.zeros(3, 3)).alphas
        one = replace(white, sh=white.sh * torch.where(torch.arange(40) == 7, 1.0, -1.0)[:, None, None])
        seventh = render(one, cameras, torch.zeros(3, 3)).images[..., 0]
    weights = blending_weights(scene, cameras)
    assert float(weights.sum()) == pytest.approx(float(alphas.sum()), rel=1e-4)
    assert float(weights[7]) == pytest.approx(float(seventh.sum()), rel=1e-4) and weights[7] > 0
