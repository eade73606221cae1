"""SDS in closed form on Gaussian data."""

from __future__ import annotations

import pytest
import torch
from views import views_of

from gsdistill.distillation.sds import SDS
from gsdistill.errors import ConfigError
from gsdistill.ramp import Ramp


def gradient(method, prior, latents, cameras, seed, progress=0.0):
    generator = torch.Generator().manual_seed(seed)
    condition = prior.condition(prior.encode_text("", ""), cameras)
    state = method.init_state(prior, generator)
    return method.gradient(prior, views_of(latents, cameras), condition, progress, state, generator)[0]


def test_expectation_over_noise_is_the_analytic_score(gaussian_prior, cameras):
    """E_eps[eps_c(x_t) - eps] = sigma alpha (x0 - mu) / (alpha^2 tau^2 + sigma^2) for N(mu, tau^2) and omega = 1."""
    latents = torch.full((4, 3, 2, 2), 1.0, dtype=torch.float64)
    method = SDS(Ramp(1.0, 1.0), Ramp(0.3, 0.3), Ramp(0.3, 0.3), weighting="uniform")
    draws = torch.stack([gradient(method, gaussian_prior, latents, cameras, seed).gradient for seed in range(600)])
    alpha, sigma = gaussian_prior.schedule.alphas[300], gaussian_prior.schedule.sigmas[300]
    expected = sigma * alpha * (1.0 - 0.4) / (alpha**2 * 0.09 + sigma**2)
    error = draws.std() / draws.numel() ** 0.5
    assert abs(float(draws.mean() - expected)) < 4 * float(error)
    assert float(error) < 0.01


def test_weight_and_guidance_scale_enter_as_written(gaussian_prior, cameras):
    latents = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    t = Ramp(0.4, 0.4)
    one, two, three = (
        gradient(SDS(Ramp(s, s), t, t, weighting="uniform"), gaussian_prior, latents, cameras, 0).gradient
        for s in (1.0, 2.0, 3.0)
    )
    torch.testing.assert_close(two - one, three - two)
    weighted = gradient(SDS(Ramp(2.0, 2.0), t, t, weighting="sds"), gaussian_prior, latents, cameras, 0).gradient
    torch.testing.assert_close(weighted, two * gaussian_prior.schedule.sigmas[400] ** 2)


def test_timestep_follows_the_annealed_range(gaussian_prior, cameras):
    latents = torch.zeros(4, 3, 2, 2)
    method = SDS(t_min=Ramp(0.02, 0.02), t_max=Ramp(0.98, 0.02))
    assert float(gradient(method, gaussian_prior, latents, cameras, 0, progress=1.0).figures["timestep"]) == 20.0


def test_descends_to_the_mode(gaussian_prior, cameras):
    """Plain gradient descent on one image of a Gaussian world ends near its mean, from far away."""
    x = torch.full((4, 3, 2, 2), -2.0, dtype=torch.float64)
    method = SDS(guidance_scale=Ramp(1.0, 1.0), weighting="uniform")
    for step in range(400):
        x = x - 0.02 * gradient(method, gaussian_prior, x, cameras, step, step / 400).gradient
    assert abs(float(x.mean()) - 0.4) < 0.05


def test_an_empty_range_of_timesteps_is_refused():
    with pytest.raises(ConfigError, match=r"t_min = 0\.5 exceeds method\.t_max = 0\.98:0\.3 at progress 1"):
        SDS(t_min=Ramp(0.5, 0.5), t_max=Ramp(0.98, 0.3))
