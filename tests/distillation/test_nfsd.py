"""NFSD in closed form on Gaussian data, with a negative prompt that is another Gaussian than that of no words."""

from __future__ import annotations

import pytest
import torch
from distillation.common import World, flat, noise_in, normal, step, told

from gsdistill.distillation.csd import CSD
from gsdistill.distillation.nfsd import NFSD


def at(t, omega=7.5, **more):
    return NFSD(flat(omega), flat(t / 1000), flat(t / 1000), **more)


@pytest.mark.parametrize(("t", "low"), [(20, True), (199, True), (200, False), (800, False)])
def test_the_rule_changes_at_a_fifth_of_the_schedule(t, low, cameras):
    """g = sigma^2 (omega (eps_c - eps_empty) + d), d = eps_empty below t = 200, else eps_empty - eps_negative."""
    world = World()
    result = step(at(t), world, normal(4, 3, 2, 2), cameras, condition=told(cameras, negative="perp0"))
    x = world.asked["positive"][0].x
    _, sigma = world.levels(t)
    conditional, empty, negative = (world.exact(name, x, t) for name in ("positive", "negative", "perp0"))
    d = empty if low else empty - negative
    torch.testing.assert_close(result.gradient, sigma**2 * (7.5 * (conditional - empty) + d))
    assert float(result.guidance.figures["low_noise"]) == low


def test_the_rule_is_of_each_view(cameras):
    method = NFSD(flat(1.0), flat(0.1), flat(0.3), weighting="uniform")
    for seed in range(5):
        world = World()
        result = step(method, world, normal(4, 3, 2, 2), cameras, seed=seed)
        asked = world.asked["positive"][0]
        low = (asked.t < 200)[:, None, None, None]
        empty, conditional = (world.exact(name, asked.x, asked.t) for name in ("negative", "positive"))
        torch.testing.assert_close(result.gradient, conditional - empty + torch.where(low, empty, 0.0))


def test_without_a_negative_prompt_it_is_csd_where_there_is_noise(cameras):
    weights = torch.tensor([[-0.5, -1.0], [0.0, -2.0], [0.8, 0.3], [-0.1, 0.0]], dtype=torch.float64)
    there, condition = flat(0.6), told(cameras, weights)
    ours, theirs = (
        step(kind(flat(7.5), there, there), World(), normal(4, 3, 2, 2), cameras, condition=condition).gradient
        for kind in (NFSD, CSD)
    )
    torch.testing.assert_close(ours, theirs)


def test_the_noise_is_taken_away_by_the_second_text(cameras):
    """Texts of one deviation and different means: g is the same constant whatever eps is, but where t is low."""
    world = World(means=(0.1, 0.4, -0.5, 0.0), deviations=(0.3,) * 4)
    condition = told(cameras, negative="perp0")
    alpha, sigma = world.levels(300)
    slope = -sigma * alpha / (alpha**2 * 0.09 + sigma**2)
    expected = (sigma**2 * slope * (2.0 * (0.4 - 0.1) + (0.1 + 0.5))).expand(4, 3, 2, 2)
    for seed in range(3):
        result = step(at(300, 2.0), world, normal(4, 3, 2, 2), cameras, seed=seed, condition=condition)
        torch.testing.assert_close(result.gradient, expected)


def test_at_low_noise_the_mean_of_the_gradient_leads_to_the_data(cameras):
    """With omega 0 and data N(m, tau^2), E g = sigma^3 alpha (x0 - m) / (alpha^2 tau^2 + sigma^2)."""
    world, latents = World(means=(0.2,) * 4, deviations=(0.5,) * 4), normal(4, 3, 2, 2)
    result = step(at(100, 0.0), world, latents, cameras)
    eps = noise_in(world, world.asked["positive"][0], latents)
    alpha, sigma = world.levels(100)
    variance = alpha**2 * 0.25 + sigma**2
    torch.testing.assert_close(result.gradient, sigma**3 * (alpha * (latents - 0.2) + sigma * eps) / variance)
