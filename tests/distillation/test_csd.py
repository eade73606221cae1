"""CSD in closed form on Gaussian data, and the three terms of its program."""

from __future__ import annotations

import pytest
import torch
from distillation.common import World, flat, noise_in, normal, step, told

from gsdistill.disk.places import data_path
from gsdistill.distillation.csd import CSD
from gsdistill.run.config import resolve
from gsdistill.settings.yaml import load_yaml
from gsdistill.testing import METHOD_CHECKS

# In a world with a negative prompt: the Gaussian "perp0" is that prompt's, "negative" that of no words.
NEGATIVE = {"negative": "perp0"}


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


def three(world, asked):
    """eps_c, eps_u of the negative prompt, and eps_empty."""
    return (world.exact(name, asked.x, asked.t) for name in ("positive", "perp0", "negative"))


@pytest.mark.parametrize("scales", [(1.0, 0.0, -1.0), (1.0, -0.4, -0.6), (1.0, -0.5, -0.5), (2.0, 1.0, 0.5)])
def test_the_three_terms_are_a_weighted_sum(scales, cameras):
    world, (cond, uncond, null) = World(), scales
    method = CSD(flat(2.0), cond_scale=flat(cond), uncond_scale=flat(uncond), null_scale=flat(null))
    result = step(method, world, normal(4, 3, 2, 2), cameras, condition=told(cameras, **NEGATIVE))
    asked = world.asked["positive"][0]
    positive, negative, empty = three(world, asked)
    _, sigma = world.levels(asked.t)
    torch.testing.assert_close(result.gradient, 2 * sigma**2 * (cond * positive + uncond * negative + null * empty))
    assert result.guidance.evaluations == 4 * 3


def test_perp_neg_has_its_own_factor(cameras):
    """P does not depend on the factors of the three terms: twice the factor, twice the difference."""
    weights = torch.tensor([[-0.5, -1.0], [0.0, -2.0], [0.8, 0.3], [-0.1, 0.0]], dtype=torch.float64)
    condition = told(cameras, weights)
    h, none, some, double = (
        step(CSD(**how), World(), normal(4, 3, 2, 2), cameras, condition=condition).gradient
        for how in (
            {},
            {"perpneg_scale": flat(0.0)},
            {"perpneg_scale": flat(3.0)},
            {"perpneg_scale": flat(6.0)},
        )
    )
    torch.testing.assert_close(double - none, 2 * (some - none))
    torch.testing.assert_close(h - none, (some - none) / 3)
    assert float((h - none).abs().max()) > 1e-3
    plain = step(CSD(), World(), normal(4, 3, 2, 2), cameras).gradient
    torch.testing.assert_close(none, plain)


def test_the_normalised_gradient_has_length_one_and_the_direction_of_the_other(cameras):
    plain, unit = (
        step(CSD(flat(7.5), normalise=normalise), World(), normal(4, 3, 2, 2), cameras).gradient
        for normalise in (False, True)
    )
    assert abs(float(unit.norm()) - 1) < 1e-6
    torch.testing.assert_close(unit * plain.norm(), plain, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", sorted(METHOD_CHECKS.keys() - {"each_view_is_alone"}))
def test_the_normalised_gradient_keeps_the_other_promises(name):
    """The norm is over all views, so each view feels the others; in the program there is one view a step."""
    METHOD_CHECKS[name](CSD(normalise=True))


@pytest.mark.parametrize(
    ("file", "progress", "scales", "t_max"),
    [
        ("csd-if", 0.0, (1, 0, -1), 0.98), ("csd-if", 0.2, (1, -0.4, -0.6), 0.98),
        ("csd-if", 0.499, (1, -0.998, -0.002), 0.98), ("csd-if", 0.5, (1, -1, 0), 0.5),
        ("csd-if", 1.0, (1, -1, 0), 0.5),
        ("csd-sd-refine", 0.0, (1, -1, 0), 0.5), ("csd-sd-refine", 0.4, (1, -0.8, -0.2), 0.5),
        ("csd-sd-refine", 1.0, (1, -0.5, -0.5), 0.5),
    ],
)  # fmt: skip
def test_the_configs_hold_the_schedules_of_the_released_stages(file, progress, scales, t_max):
    """Of its csd-if.yaml and csd-sd-refine.yaml: factors linear over 5,000 and over all 10,000 steps."""
    method = resolve({**load_yaml(data_path(f"configs/{file}.yaml")), "prompt": "x", "prior": "sd15"}).method
    assert isinstance(method, CSD)
    ours = (method.cond_scale, method.uncond_scale, method.null_scale)
    assert [scale(progress) for scale in ours] == pytest.approx(scales)
    assert (method.t_min(progress), method.t_max(progress)) == (0.02, t_max)
    assert (method.weighting, method.normalise, method.guidance_scale(progress)) == (
        ("uniform", True, 1) if file == "csd-if" else ("sds", False, 1)
    )
