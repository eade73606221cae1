"""The specification against finite differences and against gsplat's own formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci, _spherical_harmonics
from renderer.scenes import PARAMETERS, ball, cast, loss_weights, views

from gsdistill.core.structs import Gaussians, RenderOptions
from gsdistill.renderer import reference
from gsdistill.renderer.base import render


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("name", PARAMETERS)
def test_gradients_equal_finite_differences(name, antialiased):
    scene, cameras = ball(4, degree=1, size=0.2, seed=3), cast(views(2, 9, 7), torch.float64)
    values = {key: getattr(scene, key).double() for key in PARAMETERS}
    backgrounds = torch.full((2, 3), 0.3, dtype=torch.float64)
    options = RenderOptions(antialiased=antialiased)

    def loss(value: torch.Tensor) -> torch.Tensor:
        result = render(Gaussians(**{**values, name: value}, options=options), cameras, backgrounds, "reference")
        pictures = (result.images, result.alphas, result.depths)
        return sum((part * loss_weights(part.shape, seed)).sum() for seed, part in enumerate(pictures))

    start, step = values[name].requires_grad_(), 1e-6
    loss(start).backward()
    slopes = []
    with torch.no_grad():
        for shift in torch.eye(start.numel(), dtype=torch.float64).reshape(-1, *start.shape) * step:
            slopes.append((loss(start + shift) - loss(start - shift)) / (2 * step))
    assert start.grad.abs().max() > 1e-2
    torch.testing.assert_close(start.grad.flatten(), torch.stack(slopes), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [0.02, 0.8])
def test_projection_equals_gsplat(size):
    scene, cameras = ball(200, size=size, seed=1), cast(views(3, distance=1.5), torch.float64)
    scene = Gaussians(**{name: getattr(scene, name).double() for name in PARAMETERS})
    covariances, _ = _quat_scale_to_covar_preci(scene.quats, scene.scales.exp(), compute_preci=False)
    _, means, depths, conics, dimming = _fully_fused_projection(
        scene.means,
        covariances,
        cameras.viewmats,
        cameras.Ks,
        cameras.width,
        cameras.height,
        near_plane=0.1,
        far_plane=100.0,
        calc_compensations=True,
    )
    dimmed = replace(scene, options=RenderOptions(antialiased=True))
    for b in range(3):
        ours = reference.project(dimmed, cameras.viewmats[b], cameras.Ks[b], 27, 20)
        assert len(ours.index) > 50
        torch.testing.assert_close(ours.means, means[b, ours.index])
        torch.testing.assert_close(ours.depths, depths[b, ours.index])
        torch.testing.assert_close(ours.conics, conics[b, ours.index])
        torch.testing.assert_close(ours.opacities, (scene.opacities.sigmoid() * dimming[b])[ours.index])
        assert (ours.depths.diff() >= 0).all()


def test_some_of_those_are_clamped_to_the_field_of_view():
    scene, cameras = ball(200, size=0.8, seed=1), views(3, distance=1.5)
    seen = reference.project(scene, cameras.viewmats[0], cameras.Ks[0], 27, 20)
    assert (seen.means[:, 0] > 27 + 0.15 * 27).any()
    assert (seen.means[:, 1] < -0.15 * 20).any()


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_spherical_harmonics_equal_gsplat(degree):
    random = torch.Generator().manual_seed(degree)
    directions = torch.randn(50, 3, generator=random, dtype=torch.float64)
    coefficients = torch.randn(50, (degree + 1) ** 2, 3, generator=random, dtype=torch.float64)
    basis = reference.sh_basis(torch.nn.functional.normalize(directions, dim=-1), degree)
    ours = torch.einsum("nk,nkc->nc", basis, coefficients)
    torch.testing.assert_close(ours, _spherical_harmonics(degree, directions, coefficients), rtol=1e-9, atol=1e-9)


def test_recomputing_chunks_changes_nothing(monkeypatch):
    scene, cameras = ball(20), views(1)
    pictures = []
    for pairs in (1 << 25, 20 * 100):
        monkeypatch.setattr(reference, "PAIRS_PER_CHUNK", pairs)
        means = scene.means.clone().requires_grad_()
        result = render(
            Gaussians(means, scene.quats, scene.scales, scene.opacities, scene.sh),
            cameras,
            torch.ones(1, 3),
            backend="reference",
        )
        result.images.square().sum().backward()
        pictures.append((result.images.detach(), means.grad))
    for whole, chunked in zip(*pictures, strict=True):
        torch.testing.assert_close(whole, chunked, rtol=1e-4, atol=1e-4)
