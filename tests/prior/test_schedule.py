"""Noise levels: what x_t is, and steps between levels, against diffusers' own schedulers."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from tiny.steps import normal

from gsdistill.distillation.base import Weighting
from gsdistill.prior.base import Rescale, noise_from_prediction
from gsdistill.prior.schedule import NoiseSchedule

LEVELS = torch.arange(1, 1001, dtype=torch.float64) / 1000
FLOW = NoiseSchedule.from_flow(LEVELS)
COSINE = NoiseSchedule.from_cumulative_alphas(DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod)
both = pytest.mark.parametrize("schedule", [FLOW, COSINE], ids=["flow", "cosine"])


@pytest.mark.parametrize(("fraction", "index"), [(0.0, 0), (0.02, 20), (0.98, 980), (0.9996, 999), (1.0, 999)])
def test_fractions_become_timesteps(fraction, index):
    assert FLOW.index(fraction) == index


def test_the_two_kinds_of_levels():
    torch.testing.assert_close(COSINE.alphas.square() + COSINE.sigmas.square(), torch.ones(1000, dtype=torch.float64))
    torch.testing.assert_close(FLOW.alphas + FLOW.sigmas, torch.ones(1000, dtype=torch.float64), rtol=0, atol=1e-16)
    torch.testing.assert_close(FLOW.sigmas[:-1], LEVELS[:-1], rtol=0, atol=0)
    assert float(FLOW.sigmas[-1]) == 1 - 1e-4


def test_noise_is_added_as_diffusers_adds_it():
    x0, eps, t = normal(3, 2, 4, 4), normal(3, 2, 4, 4, seed=1), torch.tensor([0, 499, 998])
    reference = DDPMScheduler(beta_schedule="squaredcos_cap_v2").add_noise(x0, eps, t)
    torch.testing.assert_close(COSINE.add_noise(x0, eps, t), reference)
    scheduler = FlowMatchEulerDiscreteScheduler()
    reference = scheduler.scale_noise(x0, scheduler.timesteps.flip(0)[t], eps)
    torch.testing.assert_close(FLOW.add_noise(x0, eps, t), reference, rtol=0, atol=1e-6)


def test_a_step_down_a_flow_is_eulers():
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[0.8, 0.3])
    x, u = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    t, to = torch.tensor([799, 799]), torch.tensor([299, 299])
    eps = noise_from_prediction(u, x, t, FLOW, "flow_prediction")
    reference = scheduler.step(u, scheduler.timesteps[0], x, return_dict=False)[0]
    torch.testing.assert_close(FLOW.ddim_step(x, eps, t, to), reference, rtol=0, atol=2e-6)


def test_a_step_down_a_vp_schedule_is_ddims():
    scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False, timestep_spacing="leading")
    scheduler.set_timesteps(10)
    x, eps = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    reference = scheduler.step(eps, 700, x, return_dict=False)[0]
    torch.testing.assert_close(COSINE.ddim_step(x, eps, torch.tensor([700] * 2), torch.tensor([600] * 2)), reference)


@both
@pytest.mark.parametrize("t", [0, 20, 500, 980, 999])
def test_x0_and_eps_come_back(schedule, t):
    x0, eps, times = normal(2, 3, 4, 4).double(), normal(2, 3, 4, 4, seed=1).double(), torch.tensor([t, t])
    x_t = schedule.add_noise(x0, eps, times)
    alpha, sigma = schedule.at(times, x0)
    torch.testing.assert_close((x_t - sigma * eps) / alpha, x0, rtol=0, atol=1e-10)
    torch.testing.assert_close(noise_from_prediction(eps - x0, x_t, times, schedule, "flow_prediction"), eps)
    torch.testing.assert_close(schedule.ddim_step(x_t, eps, times, times), x_t)


@both
@pytest.mark.parametrize("weighting", ["snr", "fantasia3d", "sds"])
def test_all_that_divides_by_alpha_stays_finite_at_pure_noise(schedule, weighting: Weighting):
    x, eps, t = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1), torch.tensor([999, 999])
    alpha, sigma = schedule.at(t, x)
    weight = {"snr": sigma / alpha, "fantasia3d": alpha * sigma.square(), "sds": sigma.square()}[weighting]
    rescaled = Rescale(x, alpha, sigma, 0.5, 1).noise(eps, eps.flip(0))
    for value in (weight, rescaled, schedule.ddim_step(x, eps, t, torch.tensor([0, 998]))):
        assert bool(value.isfinite().all())


def test_a_schedule_that_ends_in_pure_noise_divides_by_no_zero():
    """Diffusers' rescale_betas_zero_snr ends at abar = 0."""
    scheduler = DDPMScheduler(rescale_betas_zero_snr=True)
    assert float(scheduler.alphas_cumprod[-1]) == 0
    schedule = NoiseSchedule.from_cumulative_alphas(scheduler.alphas_cumprod)
    assert float(schedule.alphas.min()) == pytest.approx(1e-4)
    assert bool((schedule.sigmas / schedule.alphas).isfinite().all())
    own = scheduler.alphas_cumprod.double().sqrt()
    torch.testing.assert_close(schedule.alphas, torch.where(own > 1e-4, own, 1e-4))
