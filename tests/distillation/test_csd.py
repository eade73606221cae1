"""CSD in closed form on Gaussian data."""

from __future__ import annotations

import torch
from distillation.common import World, flat, noise_in, normal, step, told

from gsdistill.distillation.csd import CSD


def test_gradient_in_closed_form(cameras):
    """g = sigma^2 omega h, h = sigma [(x_t - alpha mu) / v_c - x_t / v_u] for N(mu, tau^2) and N(0, 1)."""
    world, latents = World(), normal(4, 3, 2, 2)
    result = step(CSD(flat(7.5)), world, latents, cameras)
    (asked,) = world.asked["positive"]
    alpha, sigma = world.levels(asked.t)
    h = sigma * ((asked.x - alpha * 0.4) / (alpha**2 * 0.09 + sigma**2) - asked.x)
    torch.testing.assert_close(result.gradient, sigma**2 * 7.5 * h)
    assert int(asked.t.min()) >= 20 and int(asked.t.max()) <= 980


def test_the_noise_is_not_subtracted(cameras):
    """With eps_c = eps_u + const, g is that constant whatever eps is: no variance is left."""
    alpha, sigma = World().levels(300)
    shifted = World(means=(0.0, 0.4, 0.0, 0.0), deviations=(0.3,) * 4)
    expected = -5.0 * sigma**2 * sigma * alpha * 0.4 / (alpha**2 * 0.09 + sigma**2)
    method = CSD(flat(5.0), flat(0.3), flat(0.3))
    for seed in range(3):
        gradient = step(method, shifted, normal(4, 3, 2, 2), cameras, seed=seed).gradient
        torch.testing.assert_close(gradient, expected.expand(4, 3, 2, 2))


def test_attractor_overshoots_the_mean(cameras):
    """E_eps[h] = 0 at x0 = mu v_u / (v_u - v_c), beyond mu: CSD sharpens what tells the prompt from no prompt."""
    alpha, sigma = World().levels(300)
    v_c, v_u = alpha**2 * 0.09 + sigma**2, 1.0
    attractor = (0.4 * v_u / (v_u - v_c)).expand(4, 3, 2, 2)
    assert float(attractor.min()) > 0.4
    method = CSD(flat(1.0), flat(0.3), flat(0.3), weighting="uniform")
    world = World()
    result = step(method, world, attractor, cameras)
    eps = noise_in(world, world.asked["positive"][0], attractor)
    torch.testing.assert_close(result.gradient, sigma**2 * (1 / v_c - 1 / v_u) * eps)  # what is left has mean zero


def test_perp_neg_direction_by_hand(cameras):
    """g = w omega (h + sum_i w_i (h_i - <h_i, h> / <h, h> h))."""
    world, latents = World(), normal(4, 3, 2, 2)
    weights = torch.tensor([[-0.5, -1.0], [0.0, -2.0], [0.8, 0.3], [-0.1, 0.0]], dtype=torch.float64)
    result = step(CSD(flat(3.0), weighting="uniform"), world, latents, cameras, condition=told(cameras, weights))
    asked = world.asked["positive"][0]
    positive, negative, *perps = (
        world.exact(name, asked.x, asked.t) for name in ("positive", "negative", "perp0", "perp1")
    )
    for sample in range(4):
        h = positive[sample] - negative[sample]
        total = h.clone()
        for column, perp in enumerate(perps):
            other = perp[sample] - negative[sample]
            total += weights[sample, column] * (other - (other * h).sum() / (h * h).sum() * h)
        torch.testing.assert_close(result.gradient[sample], 3.0 * total)
