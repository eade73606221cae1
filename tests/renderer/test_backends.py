"""Every backend against closed forms and against the reference, in values and gradients."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from renderer.emulator import EMULATED, ON_GPU
from renderer.scenes import PARAMETERS, ball, cast, everything, loss_weights, one_view, views

from gsdistill.core.errors import ConfigError
from gsdistill.core.structs import SH_C0, Gaussians, RenderOptions
from gsdistill.renderer import cuda
from gsdistill.renderer.base import backends, render
from gsdistill.scene.viewpoints import orbit

DEFAULTS = RenderOptions()
every_backend = pytest.mark.parametrize("backend", ["reference", "cpu", EMULATED, ON_GPU])
compiled_backend = pytest.mark.parametrize("backend", ["cpu", EMULATED, ON_GPU])


def device(backend: str) -> str:
    return cuda.DEVICE if backend == "cuda" else "cpu"


def splats(means, scale, opacity, colours, backend):
    """Round Gaussians of one size and opacity."""
    means = torch.tensor(means, dtype=torch.float32)
    count = len(means)
    scene = Gaussians(
        means=means,
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        scales=torch.full((count, 3), math.log(scale)),
        opacities=torch.full((count,), math.log(opacity / (1 - opacity))),
        sh=(torch.tensor(colours).reshape(-1, 1, 3).expand(count, 1, 3) - 0.5) / SH_C0,
    )
    return Gaussians(**{name: getattr(scene, name).to(device(backend)) for name in PARAMETERS})


def show(scene, cameras, background, backend, options=DEFAULTS):
    place = device(backend)
    result = render(
        replace(scene, options=options),
        cast(cameras, torch.float32, place),
        torch.full((len(cameras), 3), background, device=place),
        backend,
    )
    return result.images.cpu(), result.alphas.cpu()[..., 0], result.depths.cpu()[..., 0], result.radii.cpu()


@every_backend
@pytest.mark.parametrize("antialiased", [False, True])
def test_one_gaussian_has_the_profile_of_a_bell(backend, antialiased):
    opacity, scale, colour = 0.8, 0.06, [0.9, 0.5, 0.1]
    cameras = orbit(1, 33, elevation=0.0, distance=3.0)
    options = RenderOptions(antialiased=antialiased)
    images, alphas, depths, radii = show(
        splats([[0, 0, 0]], scale, opacity, colour, backend), cameras, 0.25, backend, options
    )
    sharp = (cameras.Ks[0, 0, 0].item() * scale / 3.0) ** 2
    if antialiased:
        opacity *= sharp / (sharp + 0.3)
    axis = torch.arange(33) + 0.5 - 16.5
    profile = opacity * torch.exp(-(axis[None] ** 2 + axis[:, None] ** 2) / (2 * (sharp + 0.3)))
    profile = torch.where(profile >= 1 / 255, profile, 0.0)
    assert alphas[0, 16, 16].item() == pytest.approx(opacity, rel=1e-4)
    torch.testing.assert_close(alphas[0], profile, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(depths[0], 3.0 * profile, atol=3e-5, rtol=1e-4)
    blended = profile[..., None] * torch.tensor(colour) + (1 - profile[..., None]) * 0.25
    torch.testing.assert_close(images[0], blended, atol=1e-5, rtol=1e-4)
    assert radii[0, 0] == math.ceil(math.sqrt(2 * math.log(255 * opacity) * (sharp + 0.3)))


@every_backend
def test_the_nearer_gaussian_covers_the_farther(backend):
    scene = splats([[-1.0, 0, 0], [1.0, 0, 0]], 0.5, 0.7, [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], backend)
    front, behind = (
        show(scene, one_view(orbit(2, 15, elevation=0.0), side), 0.0, backend)[0][0, 7, 7] for side in (0, 1)
    )
    torch.testing.assert_close(front, torch.tensor([0.7, 0.0, 0.3 * 0.7]), atol=1e-3, rtol=0)
    torch.testing.assert_close(behind, torch.tensor([0.3 * 0.7, 0.0, 0.7]), atol=1e-3, rtol=0)


@every_backend
def test_the_background_shows_through_what_is_left(backend):
    scene = splats(ball(40).means.tolist(), 0.2, 0.3, [0.4, 0.6, 0.8], backend)
    (black, alphas, _, _), (grey, _, _, _) = (show(scene, views(2), level, backend) for level in (0.0, 0.5))
    torch.testing.assert_close(grey - black, (1 - alphas[..., None]).expand(-1, -1, -1, 3) * 0.5, atol=1e-6, rtol=0)


@every_backend
def test_an_opaque_wall_has_its_depth(backend):
    axis = torch.linspace(-1.5, 1.5, 31)
    wall = torch.cartesian_prod(torch.tensor([0.4]), axis, axis)
    _, alphas, depths, _ = show(
        splats(wall.tolist(), 0.08, 0.95, [0.5] * 3, backend), orbit(1, 24, elevation=0.0), 0.0, backend
    )
    assert (alphas > 0.998).all()
    torch.testing.assert_close(depths / alphas, torch.full_like(depths, 3.2 - 0.4), atol=1e-4, rtol=0)


CASES = {
    "plain": (ball(40), RenderOptions()),
    "directional colours": (ball(40, degree=3, seed=1), RenderOptions()),
    "antialiased": (ball(40, degree=1, size=0.03, seed=2), RenderOptions(antialiased=True)),
    "needles": (ball(40, size=0.05, stretch=2.0, seed=3), RenderOptions()),
    "antialiased needles": (ball(40, size=0.05, stretch=2.0, seed=4), RenderOptions(antialiased=True)),
    "antialiased splinters": (ball(40, size=0.05, stretch=1.0, seed=4), RenderOptions(antialiased=True)),
    "big": (ball(20, size=1.0, seed=5), RenderOptions()),
    "opaque": (ball(200, size=0.15, seed=6), RenderOptions()),
    "specks": (ball(100, size=0.001, seed=7), RenderOptions()),
    "near and far culled": (ball(60, seed=8), RenderOptions(near=2.4, far=2.7)),
    "no blur": (ball(40, size=0.08, seed=9), RenderOptions(eps2d=0.0)),
    "camera inside": (ball(60, size=0.3, seed=10), RenderOptions(near=0.3)),
}


# gsplat computes in float32 what the reference has in float64. Its determinant a c - b^2 cancels on needles, of which
# a c is up to 26,000 times as large here: dimmed by its root, they are 7e-3 off in pictures and 2e-3 in gradients once
# products and sums are contracted. Splinters have a factor of 70, and need no more room than others. Its backward
# begins from 1 - alpha, which is 3e-4 off where T has fallen to 1e-4, and its exponentials and roots are the fast ones.
def slack(case: str, backend: str) -> tuple[int, float, float]:
    """How far radii (pixels), pictures and gradients (of the largest) may be from the reference's."""
    if backend == "cpu":
        return 0, 1e-5, 1e-4
    return (1, 2e-2, 1e-2) if case == "antialiased needles" else (1, 1e-5, 1e-3)


@compiled_backend
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_reference(case, backend):
    scene, options = CASES[case]
    cameras = views(2, distance=0.5 if case == "camera inside" else 2.5)
    expected = everything(scene, cameras, "reference", options, torch.float64)
    found = everything(scene, cameras, backend, options, device=device(backend))
    assert expected["alphas"].max() > 0.1
    pixels, picture, gradient = slack(case, backend)
    assert (found["radii"] - expected["radii"]).abs().max() <= pixels
    for name in ("images", "alphas", "depths"):
        torch.testing.assert_close(found[name], expected[name], atol=picture, rtol=1e-4)
    for name in (*PARAMETERS, "screen"):
        ours, truth = found[f"d_{name}"], expected[f"d_{name}"]
        assert (ours - truth).abs().max() <= gradient * truth.abs().max(), name


def test_the_opaque_case_reaches_the_end_of_its_rays():
    scene, options = CASES["opaque"]
    found = everything(scene, views(2), "reference", options, torch.float64)
    assert (found["alphas"] > 0.99).any()


@every_backend
def test_screen_gradients_are_those_of_the_principal_point(backend):
    """Moving every projected mean is moving the principal point, as long as nothing is clamped to the field of view."""
    scene, cameras = ball(30, size=0.05, seed=11), views(2, distance=4.0)
    found = everything(scene, cameras, backend, device=device(backend))
    moved = cast(cameras, torch.float64)
    moved.Ks.requires_grad_()
    exact = Gaussians(**{name: getattr(scene, name).double() for name in PARAMETERS})
    result = render(exact, moved, torch.linspace(0, 1, 6).reshape(2, 3).double(), backend="reference")
    pictures = (result.images, result.alphas, result.depths)
    sum((value * loss_weights(value.shape, seed)).sum() for seed, value in enumerate(pictures)).backward()
    torch.testing.assert_close(found["d_screen"].sum(1), moved.Ks.grad[:, :2, 2], rtol=1e-4, atol=1e-4)


@every_backend
def test_a_batch_of_views_equals_its_views_one_by_one(backend):
    scene, cameras, place = ball(40, degree=1), views(3), device(backend)
    scene = Gaussians(**{name: getattr(scene, name).to(place) for name in PARAMETERS})
    together = show(scene, cameras, 0.2, backend)
    for index in range(3):
        alone = show(scene, one_view(cameras, index), 0.2, backend)
        for all_views, one in zip(together, alone, strict=True):
            assert torch.equal(all_views[index], one[0])


def nothing():
    return Gaussians(torch.zeros(0, 3), torch.zeros(0, 4), torch.zeros(0, 3), torch.zeros(0), torch.zeros(0, 1, 3))


def with_parts(scene, **parts):
    return Gaussians(**{**{name: getattr(scene, name) for name in PARAMETERS}, **parts})


HARD = {
    "no gaussian": nothing(),
    "all behind the cameras": with_parts(ball(10), means=ball(10).means * 0.1 + torch.tensor([0.0, 0.0, 60.0])),
    "all out of sight": with_parts(ball(10), scales=torch.full((10, 3), -9.0), means=ball(10).means * 0.1 + 8.0),
    "one covers everything": with_parts(ball(3), scales=torch.full((3, 3), 6.0), opacities=torch.full((3,), 20.0)),
    "wider than a float": with_parts(ball(3), scales=torch.full((3, 3), 90.0)),
    "endless needle": with_parts(ball(3), scales=torch.tensor([[5.0, -14.0, -14.0]]).repeat(3, 1)),
    "flat discs": with_parts(ball(10), scales=torch.tensor([[-1.0, -1.0, -40.0]]).repeat(10, 1)),
    "transparent": with_parts(ball(10), opacities=torch.full((10,), -30.0)),
    "same place": with_parts(ball(10), means=torch.zeros(10, 3)),
}


@every_backend
@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("case", HARD)
def test_hard_scenes_stay_finite(case, antialiased, backend):
    found = everything(HARD[case], views(2), backend, RenderOptions(antialiased=antialiased), device=device(backend))
    assert all(value.isfinite().all() for value in found.values())
    if case in ("no gaussian", "all behind the cameras", "all out of sight", "transparent", "wider than a float"):
        assert not found["radii"].any()
        assert not found["alphas"].any()
        assert not found["d_means"].any()


def test_one_that_covers_everything_is_seen_everywhere():
    found = everything(HARD["one covers everything"], views(2), "cpu")
    assert (found["alphas"] > 0.99).all()


@every_backend
def test_gradients_of_backgrounds_are_what_they_fill(backend):
    place = device(backend)
    scene = Gaussians(**{name: getattr(ball(20), name).to(place) for name in PARAMETERS})
    backgrounds = torch.zeros(2, 3, device=place, requires_grad=True)
    result = render(scene, cast(views(2), torch.float32, place), backgrounds, backend=backend)
    result.images.sum().backward()
    left = (1 - result.alphas).sum((1, 2, 3))
    torch.testing.assert_close(backgrounds.grad, left[:, None].expand(2, 3))


@every_backend
def test_any_stride_will_do(backend):
    place = device(backend)
    scene = Gaussians(**{name: getattr(ball(20, degree=1), name).to(place) for name in PARAMETERS})
    strided = Gaussians(
        means=scene.means.T.contiguous().T,
        quats=torch.cat([scene.quats, scene.quats], 1)[:, :4],
        scales=scene.scales[:, :1].expand(-1, 3),
        opacities=torch.stack([scene.opacities, scene.opacities], 1)[:, 0],
        sh=scene.sh.permute(2, 0, 1).contiguous().permute(1, 2, 0),
    )
    dense = Gaussians(**{name: getattr(strided, name).contiguous() for name in PARAMETERS})
    assert torch.equal(show(strided, views(1), 0.0, backend)[0], show(dense, views(1), 0.0, backend)[0])


def test_auto_takes_the_backend_of_the_device():
    scene, cameras, black = ball(5), views(1), torch.zeros(1, 3)
    assert torch.equal(render(scene, cameras, black).images, render(scene, cameras, black, backend="cpu").images)


def test_backends_are_the_files():
    assert backends() == ("cpu", "cuda", "reference")


def test_an_unknown_backend_is_named():
    with pytest.raises(ConfigError, match=r"'referense'.*Did you mean 'reference'\?.*auto, cpu"):
        render(ball(1), views(1), torch.zeros(1, 3), backend="referense")


def test_the_gpu_backend_says_what_it_lacks():
    with pytest.raises(ConfigError, match="needs an NVIDIA GPU"):
        render(ball(1), views(1), torch.zeros(1, 3), backend="cuda")
