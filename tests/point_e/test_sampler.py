"""The sampler against closed forms: a Gaussian, whose denoiser and whose path down the noise levels are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gsdistill.point_e.sampler import Sampling, cumulative_alphas, denoiser, guided, karras_sigmas, sample, timestep

CPU = torch.device("cpu")
MEAN, SPREAD = 0.3, 0.2
PLAIN = Sampling(steps=64, sigma_min=1e-3, sigma_max=120.0, s_churn=0.0, guidance_scale=0.0)


def gaussian(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """E[x0 | x] for x0 ~ N(MEAN, SPREAD^2)."""
    return MEAN + SPREAD**2 / (SPREAD**2 + sigma**2) * (x - MEAN)


def test_cosine_alphas_follow_their_cosine_until_the_betas_are_capped():
    alphas = cumulative_alphas("cosine", 1024)
    level = [math.cos((t / 1024 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1025)]
    assert alphas[:1000] == pytest.approx([value / level[0] for value in level[1:1001]], rel=1e-9)
    assert 1.0 - alphas[-1] / alphas[-2] == pytest.approx(0.999)
    assert bool((np.diff(alphas) < 0).all())


def test_linear_alphas_are_the_product_of_their_betas():
    alphas, product = cumulative_alphas("linear", 500), 1.0
    for k in range(500):
        product *= 1.0 - 2.0 * (1e-4 + (0.02 - 1e-4) * k / 499)
        assert alphas[k] == pytest.approx(product, rel=1e-12)


def brute(sigma: float, alphas: np.ndarray) -> float:
    a = 1.0 / (sigma * sigma + 1.0)
    if a >= alphas[0]:
        return 0.0
    for k in range(len(alphas) - 1):
        if alphas[k] >= a >= alphas[k + 1]:
            return k + (alphas[k] - a) / (alphas[k] - alphas[k + 1])
    return len(alphas) - 1.0


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_timestep_of_a_noise_level_is_interpolated_and_stops_at_the_ends(schedule):
    alphas = cumulative_alphas(schedule, 1024)
    for sigma in np.geomspace(1e-4, 1e5, 200):
        assert timestep(float(sigma), alphas) == pytest.approx(brute(float(sigma), alphas), abs=1e-9)
    at = [timestep(math.sqrt((1 - alphas[k]) / alphas[k]), alphas) for k in (0, 1, 500, 1000)]
    assert at == pytest.approx([0, 1, 500, 1000], abs=1e-4)
    assert (timestep(1e-4, alphas), timestep(1e9, alphas)) == (0.0, 1023.0)


def test_karras_levels_are_even_in_their_seventh_root():
    sigmas = karras_sigmas(replace(PLAIN, steps=10))
    assert (len(sigmas), sigmas[-1]) == (11, 0.0)
    assert (sigmas[0], sigmas[-2]) == pytest.approx((120.0, 1e-3))
    gaps = np.diff(sigmas[:-1] ** (1 / 7))
    assert gaps == pytest.approx(gaps[0])


@pytest.mark.parametrize(("churn", "steps"), [(0.0, 64), (3.0, 64), (40.0, 256)])
def test_samples_of_a_gaussian_have_its_mean_and_deviation(churn, steps):
    x = sample(
        gaussian, (50, 6, 400), replace(PLAIN, s_churn=churn, steps=steps), torch.Generator().manual_seed(0), CPU
    )
    count = x.numel()
    assert float(x.mean()) == pytest.approx(MEAN, abs=4 * SPREAD / math.sqrt(count) + 2e-4)
    assert float(x.std()) == pytest.approx(SPREAD, rel=4 / math.sqrt(2 * count) + 3e-3)


def test_heun_nears_the_exact_path_with_the_square_of_the_steps():
    """dx/dsigma = (x - D) / sigma is solved by (x - m) / sqrt(s^2 + sigma^2) = const."""
    errors = []
    for steps in (40, 80, 160):
        start = 120.0 * torch.randn((1, 6, 50), generator=torch.Generator().manual_seed(0), dtype=torch.float32)
        exact = MEAN + (start - MEAN) * SPREAD / math.sqrt(SPREAD**2 + 120.0**2)
        ours = sample(gaussian, (1, 6, 50), replace(PLAIN, steps=steps), torch.Generator().manual_seed(0), CPU)
        errors.append(float((ours - exact).abs().max()))
    assert errors[0] < 0.02
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(4.0, rel=0.25)


def test_a_step_of_the_sampler_is_the_published_algorithm():
    """Two levels with churn, written out: noise up, Heun to the second level, noise up, Euler to zero."""
    settings = Sampling(steps=2, sigma_min=1.0, sigma_max=4.0, s_churn=0.4, guidance_scale=0.0)
    draws = torch.Generator().manual_seed(5)
    n = [torch.randn((1, 6, 3), generator=draws) for _ in range(3)]
    x = 4.0 * n[0]
    hat = 4.0 * 1.2
    x = x + math.sqrt(hat**2 - 16.0) * n[1]
    d = (x - gaussian(x, hat)) / hat
    ahead = x + (1.0 - hat) * d
    x = x + (1.0 - hat) * (d + (ahead - gaussian(ahead, 1.0))) / 2.0
    x = x + math.sqrt(1.44 - 1.0) * n[2]
    expected = gaussian(x, 1.2)
    got = sample(gaussian, (1, 6, 3), settings, torch.Generator().manual_seed(5), CPU)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_churn_is_capped_so_that_a_level_grows_by_root_two_at_most():
    seen = []

    def watch(x: torch.Tensor, sigma: float) -> torch.Tensor:
        seen.append(sigma)
        return gaussian(x, sigma)

    sample(watch, (1, 6, 2), replace(PLAIN, steps=2, s_churn=100.0), torch.Generator().manual_seed(0), CPU)
    assert seen == pytest.approx([120.0 * math.sqrt(2.0), 1e-3, 1e-3 * math.sqrt(2.0)])


def test_the_denoiser_feeds_the_scaled_cloud_and_its_timestep_and_clips():
    alphas, calls = cumulative_alphas("cosine", 64), []

    def noise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append((x, t))
        return torch.cat([0.1 * x, 1e9 * x], dim=1)

    x = torch.linspace(-6, 6, 12).reshape(2, 6, 1)
    got = denoiser(noise, alphas)(x, 2.0)
    torch.testing.assert_close(calls[0][0], x / math.sqrt(5.0))
    assert calls[0][1].tolist() == pytest.approx([timestep(2.0, alphas)] * 2)
    torch.testing.assert_close(got, (x - 2.0 * 0.1 * x / math.sqrt(5.0)).clamp(-1, 1))
    assert float(got.max()) == 1.0


def test_the_exact_noise_of_a_gaussian_makes_its_denoiser():
    """eps(x, t) = sigma_t (x / a_t - m) / (s^2 + sigma_t^2) for x = a_t (x0 + sigma_t n)."""
    alphas = cumulative_alphas("cosine", 4096)

    def noise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a = float(np.interp(float(t[0]), np.arange(4096), alphas))
        sigma = math.sqrt((1 - a) / a)
        return sigma * (x / math.sqrt(a) - MEAN) / (SPREAD**2 + sigma**2)

    x = MEAN + 0.1 * torch.randn(1, 6, 20, generator=torch.Generator().manual_seed(0))
    for sigma in (0.05, 0.5, 3.0):
        torch.testing.assert_close(denoiser(noise, alphas)(x, sigma), gaussian(x, sigma), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_guidance_mixes_what_is_expected(scale):
    calls = []

    def conditional(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return 0.5 * x

    def unconditional(x: torch.Tensor, sigma: float) -> torch.Tensor:
        calls.append(sigma)
        return 0.2 * x

    x = torch.ones(1, 6, 2)
    got = guided(conditional, unconditional, scale)(x, 1.0)
    factor = 0.5 if scale in (0.0, 1.0) else 0.2 + scale * 0.3
    torch.testing.assert_close(got, factor * x)
    assert bool(calls) == (scale not in (0.0, 1.0))


def test_the_same_generator_gives_the_same_sample():
    one, two, other = (
        sample(gaussian, (1, 6, 9), replace(PLAIN, steps=8, s_churn=3.0), torch.Generator().manual_seed(s), CPU)
        for s in (1, 1, 2)
    )
    assert bool((one == two).all())
    assert not bool((one == other).any())
