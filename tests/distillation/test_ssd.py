"""SSD: the projection, its threshold, its two limits, and closed forms on Gaussian data."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from distillation.common import World, flat, noise_in, normal, step

from gsdistill.distillation.base import dot
from gsdistill.distillation.csd import CSD
from gsdistill.distillation.sds import projection
from gsdistill.distillation.ssd import SSD, mode_seeking
from gsdistill.prior.base import Noise


@pytest.fixture
def noise() -> Noise:
    conditional, unconditional = normal(5, 3, 4, 4, seed=1), normal(5, 3, 4, 4, seed=2)
    return Noise(conditional, unconditional, conditional - unconditional)


def norm(x):
    return x.flatten(1).norm(dim=1)


def test_mode_seeking_term_has_the_norm_of_h_and_nothing_along_the_noise(noise):
    eps = normal(5, 3, 4, 4, seed=3)
    E = mode_seeking(noise, eps)
    torch.testing.assert_close(norm(E), norm(noise.direction))
    assert float(dot(E, eps).abs().max()) < 1e-12
    r = torch.linalg.lstsq(eps.flatten(1)[:, :, None], noise.conditional.flatten(1)[:, :, None]).solution
    rest = noise.conditional - r[..., None] * eps
    torch.testing.assert_close(E / norm(E)[:, None, None, None], rest / norm(rest)[:, None, None, None])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1.0, 1e-25])
def test_a_conditional_noise_that_is_all_noise_leaves_nothing(dtype, size):
    """eps_c = 2 eps (powers of two, so that the rest is exactly zero), and a rest too small to square."""
    eps = torch.ones(2, 1, 2, 2, dtype=dtype)
    conditional = 2 * eps if size == 1.0 else torch.tensor([1.0, -1.0]).to(dtype).repeat(2, 1, 2, 1) * size
    E = mode_seeking(Noise(conditional, torch.zeros_like(eps), conditional), eps)
    assert bool(E.isfinite().all())
    if size == 1.0 or dtype == torch.float32:
        assert float(E.abs().max()) == 0.0
    else:
        assert float(E.abs().max()) <= size


@pytest.mark.parametrize(("t", "late"), [(199, True), (200, True), (201, False), (980, False)])
def test_the_mode_is_sought_up_to_exactly_m(t, late, cameras):
    world, latents = World(), normal(4, 3, 2, 2)
    method = SSD(flat(7.5), flat(0.2), flat(t / 1000), flat(t / 1000), weighting="uniform")
    result = step(method, world, latents, cameras)
    asked = world.asked["positive"][0]
    assert asked.t.tolist() == [t] * 4
    eps = noise_in(world, asked, latents)
    along = dot(result.gradient, eps) / norm(eps)[:, None, None, None]
    assert (float(along.abs().max()) < 1e-10) == late
    assert float(result.guidance.figures["mode_seeking"]) == late


def test_each_view_goes_its_own_way(cameras):
    """A batch with t on both sides of M: h above it, the rescaled rest of eps_c below, both w omega times."""
    world, latents = World(), normal(4, 3, 2, 2)
    result = step(SSD(flat(5.0), flat(0.5)), world, latents, cameras)
    asked = world.asked["positive"][0]
    late = asked.t <= 500
    assert bool(late.any()) and not bool(late.all())
    eps, c, u = (
        noise_in(world, asked, latents), *(world.exact(name, asked.x, asked.t) for name in ("positive", "negative")),
    )  # fmt: skip
    for sample in range(4):
        E = c[sample] - u[sample]
        if late[sample]:
            rest = c[sample] - (c[sample] * eps[sample]).sum() / eps[sample].square().sum() * eps[sample]
            E = E.norm() / rest.norm() * rest
        w = world.levels(asked.t[sample])[1][0] ** 2
        torch.testing.assert_close(result.gradient[sample], w * 5.0 * E)


def test_without_mode_seeking_it_is_csd_bit_for_bit(cameras):
    latents = normal(4, 3, 2, 2)
    for seed in range(5):
        ssd = SSD(flat(7.5), flat(0.0), flat(0.0), flat(0.98))  # t = 0 included
        csd = CSD(flat(7.5), flat(0.0), flat(0.98))
        first, second = (step(method, World(), latents, cameras, seed=seed).gradient for method in (ssd, csd))
        assert torch.equal(first, second)
    at_zero = SSD(flat(7.5), flat(0.0), flat(0.0), flat(0.0))
    assert float(step(at_zero, World(), latents, cameras).guidance.figures["mode_seeking"]) == 0.0


def test_in_a_gaussian_world_the_late_term_points_to_the_mean(cameras):
    """eps_c = sigma (alpha (x0 - mu) + sigma eps) / v: without its part along eps, what is left is of x0 - mu alone."""
    world, latents = World(), normal(4, 3, 2, 2)
    result = step(SSD(flat(1.0), flat(1.0), weighting="uniform"), world, latents, cameras)
    asked = world.asked["positive"][0]
    eps, away = noise_in(world, asked, latents), latents - 0.4
    rest = away - projection(away, eps) * eps
    h = world.exact("positive", asked.x, asked.t) - world.exact("negative", asked.x, asked.t)
    torch.testing.assert_close(result.gradient, (norm(h) / norm(rest))[:, None, None, None] * rest)
    assert bool((dot(result.gradient, away) > 0).all())


def test_the_projection_is_close_to_the_best_constant_and_rises_with_t(cameras):
    """Eq. 7: c* = tr Cov(eps_c, eps) / d = sigma^2 / v on a Gaussian; r of each sample is near it."""
    world, means = World(shape=(3, 32, 32)), []
    for t in (50, 200, 400, 700, 950):
        latents = 0.4 + 0.3 * normal(16, 3, 32, 32)
        (alpha, sigma), eps = world.levels(t), normal(16, 3, 32, 32, seed=t)
        r = projection(world.exact("positive", alpha * latents + sigma * eps, t), eps)
        best = sigma**2 / (alpha**2 * 0.09 + sigma**2)
        assert float((r - best).abs().max()) < 0.05
        means.append(float(r.mean()))
    assert means == sorted(means)


def test_guidance_scale_is_a_plain_factor(cameras):
    latents, method = normal(4, 3, 2, 2), SSD(flat(2.0), flat(0.5))
    one, two = (step(replace(method, guidance_scale=flat(s)), World(), latents, cameras).gradient for s in (2.0, 6.0))
    torch.testing.assert_close(3.0 * one, two)
