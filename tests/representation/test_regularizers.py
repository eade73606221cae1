"""Penalties by hand, their directions, and their gradients against finite differences."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest
import torch
from renderer.emulator import EMULATED
from renderer.scenes import PARAMETERS, ball, cast, views

from gsdistill.core.structs import Cameras, Gaussians, Render, RenderOptions
from gsdistill.renderer.base import render
from gsdistill.renderer.maps import normal_pictures
from gsdistill.renderer.reference import project
from gsdistill.representation import regularizers
from gsdistill.representation.regularizers import RegularizerSettings, penalty
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.ramp import Ramp

TERMS = [field.name for field in fields(RegularizerSettings)]


@pytest.fixture
def scene() -> tuple[Gaussians, Render, Cameras]:
    """Two Gaussians, and one picture of 2 x 2 pixels that is not theirs."""
    scales = torch.tensor([[0.0, -1.0, -2.0], [math.log(0.5), -3.0, -3.0]])
    means, logits = torch.tensor([[0.0, 3.0, 4.0], [0.0, 0.0, -1.0]]), torch.tensor([0.0, math.log(3.0)])
    gaussians = Gaussians(means, torch.ones(2, 4), scales, logits, torch.zeros(2, 1, 3))
    alphas = torch.tensor([0.0, 0.5, 1.0, 0.1]).reshape(1, 2, 2, 1)
    images = torch.tensor([[0.0, 0.1, 0.2], [0.0, 0.1, 0.5], [0.0, 0.6, 0.2], [1.0, 0.1, 0.2]]).reshape(1, 2, 2, 3)
    depths = torch.tensor([0.0, 1.0, 4.0, 0.3]).reshape(1, 2, 2, 1)
    out = Render(images, alphas, depths, torch.zeros(1, 2, 2), torch.ones(1, 2, dtype=torch.int32))
    return gaussians, out, orbit(1, 2)


def only(name: str, weight: float = 3.0) -> RegularizerSettings:
    return RegularizerSettings(**{name: Ramp(weight, weight)})


# Rows of the picture: a b / c d. Twice the means of (a - c)^2, (b - d)^2 and of (a - b)^2, (c - d)^2.
TV = 2 * ((0.25 + 1.0 + 0.09) / 6 + (0.09 + 1.0 + 0.25) / 6)
DEPTH_TV = 2 * ((16.0 + 0.49) / 2 + (1.0 + 3.7**2) / 2)
DISPARITY_TV = 2 * ((1.0 + (1 - 0.01 / 0.3 / 0.25) ** 2) / 2 + (1.0 + (1 - 0.01 / 0.3 / 0.25) ** 2) / 2)
NATS = -sum(a * math.log(a) + (1 - a) * math.log(1 - a) for a in (0.001, 0.5, 0.999, 0.1)) / 4
SIZES = [(1.0, math.exp(-1), math.exp(-2)), (0.5, math.exp(-3), math.exp(-3))]
BULK = 0.5 * math.hypot(*SIZES[0]) + 0.75 * math.hypot(*SIZES[1])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("opacity", 0.4), ("entropy", (0.25 + 0.09) / 4), ("scale", (1.0 + 0.25) / 2),
        ("sparsity", (0.1 + math.sqrt(0.26) + math.sqrt(1.01) + math.sqrt(0.02)) / 4), ("opaque", NATS),
        ("depth_sparsity", (0.1 + math.sqrt(0.0725) + math.sqrt(1.01) + math.sqrt(0.075**2 + 0.01)) / 4),
        ("tv", TV), ("depth_tv", DEPTH_TV), ("disparity_tv", DISPARITY_TV),
        ("mean_scale", sum(map(sum, SIZES)) / 6), ("total_scale", sum(map(sum, SIZES))), ("bulk", BULK),
        ("position", 3.0), ("outlying", (0.5 * 5 + 0.75) / 2),
    ],
)  # fmt: skip
def test_each_term_by_hand(name, expected, scene):
    assert float(penalty(only(name), 0.5, *scene)) == pytest.approx(3 * expected, rel=1e-5)


def test_off_is_zero_and_schedules_are_followed(scene, monkeypatch):
    monkeypatch.setattr(regularizers, "_TERMS", dict.fromkeys(TERMS))  # none is even computed
    assert float(penalty(RegularizerSettings(), 0.0, *scene)) == 0.0
    monkeypatch.undo()
    falling = RegularizerSettings(opacity=Ramp(10.0, 0.0))
    assert float(penalty(falling, 0.5, *scene)) == pytest.approx(5 * 0.4)
    assert float(penalty(falling, 1.0, *scene)) == 0.0
    both = replace(falling, entropy=Ramp(2.0, 2.0))
    assert float(penalty(both, 0.5, *scene)) == pytest.approx(5 * 0.4 + 2 * 0.085)


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("backend", ["reference", "cpu", EMULATED])
def test_the_variance_of_depth_is_that_of_what_each_pixel_sees(backend, antialiased, monkeypatch):
    """Against the sum of w (z - mean)^2 over the Gaussians of every pixel, one after the other."""
    monkeypatch.setattr(regularizers, "render", partial(render, backend=backend))
    gaussians, cameras = ball(12, degree=1, size=0.2), views(3, 15, 12)
    gaussians = replace(gaussians, options=RenderOptions(antialiased=antialiased))
    seen, exact = [], cast(cameras, torch.float64)
    for b in range(3):
        doubles = gaussians.each(lambda value: value.double())
        splats = project(doubles, exact.viewmats[b], exact.Ks[b], 15, 12)
        for row in range(12):
            for column in range(15):
                left, weights = 1.0, []
                for i, (x, y) in enumerate(splats.means.tolist()):
                    dx, dy = column + 0.5 - x, row + 0.5 - y
                    xx, xy, yy = splats.conics[i].tolist()
                    exponent = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
                    alpha = min(0.999, float(splats.opacities[i]) * math.exp(-exponent))
                    weights.append(alpha * left if alpha >= 1 / 255 else 0.0)
                    left *= 1 - alpha if alpha >= 1 / 255 else 1.0
                if 1 - left > 0.5:
                    shares, z = np.array(weights) / sum(weights), splats.depths.numpy()
                    seen.append(float(shares @ (z - shares @ z) ** 2))
    assert len(seen) > 100 and max(seen) > 0.05
    out = render(gaussians, cameras, torch.zeros(3, 3), backend)
    found = penalty(only("z_variance", 1.0), 0.0, gaussians, out, cameras)
    assert float(found) == pytest.approx(np.mean(seen), rel=1e-4)


def test_the_variance_of_a_plane_and_of_nothing_is_zero():
    """Of Gaussians at one camera z, to the rounding of z^2 = 10 in float32."""
    place = torch.linspace(-0.5, 0.5, 8)
    means = torch.stack([torch.zeros(8), place, place.flip(0)], -1)
    row = Gaussians(means, torch.eye(4)[:1].expand(8, 4), torch.full((8, 3), -1.5), torch.ones(8), torch.zeros(8, 1, 3))
    camera = orbit(1, 24, elevation=0.0)
    out = render(row, camera, torch.zeros(1, 3))
    assert abs(float(penalty(only("z_variance"), 0.0, row, out, camera))) < 1e-4
    faint = replace(row, opacities=torch.full((8,), -6.0, requires_grad=True))
    none = penalty(only("z_variance"), 0.0, faint, render(faint, camera, torch.zeros(1, 3)), camera)
    none.backward()
    assert float(none.detach()) == 0.0 and not faint.opacities.grad.any()


def test_two_layers_have_the_variance_of_two_numbers():
    """A wide layer of opacity o before an opaque one at a distance d: o (1 - o) d^2 in their middle."""
    means, logits = torch.tensor([[0.4, 0.0, 0.0], [-0.4, 0.0, 0.0]]), torch.tensor([math.log(0.3 / 0.7), 12.0])
    wide = torch.tensor([[0.001, 9.0, 9.0]]).log().expand(2, 3)
    layers = Gaussians(means, torch.eye(4)[:1].expand(2, 4), wide, logits, torch.zeros(2, 1, 3))
    camera = orbit(1, 16, elevation=0.0, fov=4.0)
    out = render(layers, camera, torch.zeros(1, 3))
    found = penalty(only("z_variance", 1.0), 0.0, layers, out, camera)
    assert float(found) == pytest.approx(0.3 * 0.7 * 0.8**2, rel=5e-3)  # no Gaussian is more opaque than 0.999


def test_bending_outwards_is_rewarded_as_by_hand_and_inwards_is_not():
    """A cylinder round the vertical axis, seen from outside and from inside; and the program's sums by numpy."""
    camera = cast(orbit(1, 64, elevation=0.0), torch.float64)
    u = (torch.arange(64, dtype=torch.float64) + 0.5 - 32) / camera.Ks[0, 0, 0]
    found = []
    for side in (-1, 1):
        a, b, c = 1 + u**2, -3.2, 3.2**2 - 1.44
        depths = ((-b + side * (b * b - a * c).sqrt()) / a).expand(1, 64, 64)[..., None]
        out = Render(
            depths.expand(-1, -1, -1, 3), torch.ones_like(depths), depths, torch.zeros(1, 0, 2), torch.zeros(1, 0).int()
        )
        found.append(float(penalty(only("convex", 1.0), 0.0, ball(1), out, camera)))
        pictures = normal_pictures(out, camera)[0].numpy()
        coarse = 0.25 * sum(pictures[i::8, j::8] for i in (3, 4) for j in (3, 4))  # bilinear, at every eighth middle
        bends = np.cross(coarse[:, :-1], coarse[:, 1:])[..., 2], np.cross(coarse[1:], coarse[:-1])[..., 2]
        assert found[-1] == pytest.approx(-(bends[0].mean() + bends[1].mean()), abs=1e-12)
    assert found[0] < -0.02 and found[1] > 0.02


def pictured(name: str, gaussians: Gaussians, cameras: Cameras) -> torch.Tensor:
    return penalty(only(name, 1.0), 0.0, gaussians, render(gaussians, cameras, HALF, "reference"), cameras)


HALF = torch.full((2, 3), 0.5, dtype=torch.float64)


@pytest.mark.parametrize("name", TERMS)
def test_gradients_are_those_of_finite_differences(name, monkeypatch):
    """Along a random direction of each parameter, by the reference in float64."""
    monkeypatch.setattr(regularizers, "render", partial(render, backend="reference"))
    gaussians, cameras = ball(25, size=0.25).each(lambda value: value.double()), cast(views(2, 18, 13), torch.float64)
    leaves = gaussians.each(lambda value: value.clone().requires_grad_())
    if name == "disparity_tv":  # the nearest of each view, by which it is divided, counts as given
        top = nearness(render(gaussians, cameras, HALF, "reference")).amax((1, 2, 3), keepdim=True)
        monkeypatch.setattr(regularizers, "disparities", lambda out: nearness(out) / top)
    pictured(name, leaves, cameras).backward()
    random, moved = torch.Generator().manual_seed(7), 0
    for key in PARAMETERS:
        start, slope = getattr(gaussians, key), getattr(leaves, key).grad
        way = torch.randn(start.shape, generator=random, dtype=torch.float64)
        ends = [pictured(name, replace(gaussians, **{key: start + step * way}), cameras) for step in (1e-6, -1e-6)]
        numeric = float(ends[0] - ends[1]) / 2e-6
        given = {"bulk": "scales", "outlying": "means"}.get(name) == key  # by these it must not change
        found = 0.0 if slope is None else float((slope * way).sum())
        assert found == pytest.approx(0.0 if given else numeric, rel=2e-4, abs=1e-7), key
        moved += abs(found) > 1e-6
    assert moved


def nearness(out: Render) -> torch.Tensor:
    return out.alphas.square() / out.depths.clamp_min(1e-6)
