"""RFDS and RFDS-Rev: errors of a flow's velocity, on rectified flow and on variance-preserving levels."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import pytest
import torch
from distillation.common import World, flat, noise_in, normal, step

from gsdistill.distillation.rfds import RFDS
from gsdistill.distillation.rfds_rev import RFDSRev
from gsdistill.prior.schedule import NoiseSchedule

SIGMAS = torch.linspace(1, 1000, 1000, dtype=torch.float64) / 1001
FLOW = NoiseSchedule(1 - SIGMAS, SIGMAS)
WITHOUT = RFDS(flat(7.5), random_factor=False)
every_correction = pytest.mark.parametrize("correction", ["scaled", "whole"])


def velocity(world, noise, x, t):
    """eps - x0 of one answer of the network."""
    alpha, sigma = world.levels(t)
    return noise - (x - sigma * noise) / alpha


def test_it_is_the_gradient_of_the_squared_error_of_the_velocity(cameras):
    """0.5 |u_cfg - (eps - x0)|^2 by x0, where u_cfg is held still."""
    world, latents = World(schedule=FLOW), normal(4, 3, 2, 2).requires_grad_()
    result = step(WITHOUT, world, latents.detach(), cameras)
    (asked,) = world.asked["positive"]
    eps = noise_in(world, asked, latents.detach())
    u = velocity(world, world.guided(asked.x, asked.t, 7.5), asked.x, asked.t)
    (0.5 * (u - (eps - latents)).square().sum()).backward()
    torch.testing.assert_close(result.gradient, latents.grad, rtol=1e-9, atol=1e-11)


def test_on_variance_preserving_levels_the_straight_paths_error_is_alpha_plus_sigma_times_as_large(cameras):
    """x_t / (alpha + sigma) lies on the straight path from x0 to eps, at sigma / (alpha + sigma)."""
    world, latents = World(), normal(4, 3, 2, 2)
    gradient = step(WITHOUT, world, latents, cameras).gradient
    (asked,) = world.asked["positive"]
    alpha, sigma = world.levels(asked.t)
    eps, place = noise_in(world, asked, latents), sigma / (alpha + sigma)
    torch.testing.assert_close(asked.x / (alpha + sigma), (1 - place) * latents + place * eps)
    error = velocity(world, world.guided(asked.x, asked.t, 7.5), asked.x, asked.t) - (eps - latents)
    torch.testing.assert_close(error, (alpha + sigma) * gradient, rtol=1e-9, atol=1e-11)
    assert 1 <= float((alpha + sigma).min()) < float((alpha + sigma).max()) <= 2**0.5


def test_the_random_factor_is_one_number_for_a_step(cameras):
    """The draws of t and of the noise come before it, so that they are the same with and without."""
    shares = []
    for seed in range(200):
        whole, part = (
            step(method, World(schedule=FLOW), normal(4, 3, 2, 2), cameras, seed=seed).gradient
            for method in (WITHOUT, replace(WITHOUT, random_factor=True))
        )
        shares.append(float(part.flatten()[0] / whole.flatten()[0]))
        torch.testing.assert_close(part, shares[-1] * whole, rtol=1e-9, atol=1e-12)
    drawn = torch.tensor(shares, dtype=torch.float64)
    # a mean of sigmoid(z) over 4 views, z standard normal: sigmoid(z) has the mean 1/2 and the deviation below
    z = torch.tensor([NormalDist().inv_cdf((i + 0.5) / 4000) for i in range(4000)], dtype=torch.float64)
    deviation = float(z.sigmoid().std()) / 2
    assert float(drawn.mean()) == pytest.approx(0.5, abs=4 * deviation / 200**0.5)
    assert float(drawn.std()) == pytest.approx(deviation, rel=0.2)


@every_correction
def test_the_noise_is_corrected_by_the_prompt_alone(correction, cameras):
    """eps' = eps + k (u_c + x0 - eps), and then RFDS with it; the empty text is not asked before."""
    world, latents = World(schedule=FLOW), normal(4, 3, 2, 2)
    result = step(RFDSRev(flat(7.5), correction=correction), world, latents, cameras)
    first, second = world.asked["positive"]
    (empty,) = world.asked["negative"]
    eps, alpha = noise_in(world, first, latents), world.levels(first.t)[0]
    error = velocity(world, world.exact("positive", first.x, first.t), first.x, first.t) + latents - eps
    corrected = eps + (alpha if correction == "scaled" else 1.0) * error
    torch.testing.assert_close(noise_in(world, second, latents), corrected, rtol=1e-9, atol=1e-11)
    assert torch.equal(empty.x, second.x) and torch.equal(first.t, second.t)
    u = velocity(world, world.guided(second.x, second.t, 7.5), second.x, second.t)
    torch.testing.assert_close(result.gradient, u - (corrected - latents), rtol=1e-9, atol=1e-11)


def test_the_scaled_correction_takes_the_noise_that_the_prompt_sees_on_any_levels(cameras):
    for schedule in (None, FLOW):
        world, latents = World(schedule=schedule), normal(4, 3, 2, 2)
        step(RFDSRev(), world, latents, cameras)
        first, second = world.asked["positive"]
        seen = world.exact("positive", first.x, first.t)
        torch.testing.assert_close(noise_in(world, second, latents), seen, rtol=1e-9, atol=1e-11)


@every_correction
def test_where_data_is_one_point_both_lead_to_it_whatever_the_noise(correction, cameras):
    """All data at mu: without guidance g = (x0 - mu) / sigma_t, for RFDS and for RFDS-Rev."""
    latents = normal(4, 3, 2, 2)
    for method in (replace(WITHOUT, guidance_scale=flat(1.0)), RFDSRev(flat(1.0), correction=correction)):
        point = World(means=(0.4,) * 4, deviations=(0.0,) * 4, schedule=FLOW)
        gradient = step(method, point, latents, cameras).gradient
        sigma = point.levels(point.asked["positive"][0].t)[1]
        torch.testing.assert_close(gradient, (latents - 0.4) / sigma, rtol=1e-9, atol=1e-11)
