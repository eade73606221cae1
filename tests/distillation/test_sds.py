"""SDS in closed form on Gaussian data, its three ways of drawing t and its variance reduction."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from distillation.common import World, flat, noise_in, normal, step

from gsdistill.core.errors import ConfigError
from gsdistill.distillation.sds import SDS, projection
from gsdistill.prior.analytic import plain_schedule
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.ramp import Ramp

AT_300 = SDS(flat(1.0), flat(0.3), flat(0.3), weighting="uniform")


def test_expectation_over_noise_is_the_analytic_score(cameras):
    """E_eps[eps_c(x_t) - eps] = sigma alpha (x0 - mu) / (alpha^2 tau^2 + sigma^2) for N(mu, tau^2) and omega = 1."""
    latents = torch.full((4, 3, 2, 2), 1.0, dtype=torch.float64)
    draws = torch.stack([step(AT_300, World(), latents, cameras, seed=seed).gradient for seed in range(600)])
    alpha, sigma = World().levels(300)
    expected = sigma * alpha * (1.0 - 0.4) / (alpha**2 * 0.09 + sigma**2)
    error = draws.std() / draws.numel() ** 0.5
    assert abs(float(draws.mean() - expected)) < 4 * float(error)
    assert float(error) < 0.01


def test_gradient_in_closed_form(cameras):
    """g = sigma^2 (eps_u + omega (eps_c - eps_u) - eps), with x_t = alpha x0 + sigma eps of standard normal eps."""
    world, latents = World(shape=(3, 32, 32)), normal(4, 3, 32, 32)
    method = SDS(flat(7.5), flat(0.02), flat(0.98))
    result = step(method, world, latents, cameras)
    (asked,) = world.asked["positive"]
    eps = noise_in(world, asked, latents)
    expected = world.levels(asked.t)[1] ** 2 * (world.guided(asked.x, asked.t, 7.5) - eps)
    torch.testing.assert_close(result.gradient, expected, rtol=1e-9, atol=1e-9)
    assert abs(float(eps.mean())) < 4 / eps.numel() ** 0.5
    assert abs(float(eps.var()) - 1) < 4 * (2 / eps.numel()) ** 0.5
    assert len(set(asked.t.tolist())) > 1  # each view has its own


def test_weight_and_guidance_scale_enter_as_written(cameras):
    latents = normal(4, 3, 2, 2, seed=5)
    t = flat(0.4)
    one, two, three = (
        step(SDS(flat(s), t, t, weighting="uniform"), World(), latents, cameras).gradient for s in (1.0, 2.0, 3.0)
    )
    torch.testing.assert_close(two - one, three - two)
    weighted = step(SDS(flat(2.0), t, t, weighting="sds"), World(), latents, cameras).gradient
    torch.testing.assert_close(weighted, two * World().levels(400)[1] ** 2)


def test_timestep_follows_the_annealed_range(cameras):
    method = SDS(t_min=Ramp(0.02, 0.02), t_max=Ramp(0.98, 0.02))
    result = step(method, World(), torch.zeros(4, 3, 2, 2), cameras, progress=1.0)
    assert float(result.guidance.figures["timestep"]) == 20.0


def test_descends_to_the_mode(cameras):
    """Plain gradient descent on one image of a Gaussian world ends near its mean, from far away."""
    x = torch.full((4, 3, 2, 2), -2.0, dtype=torch.float64)
    method = SDS(guidance_scale=flat(1.0), weighting="uniform")
    for count in range(400):
        x = x - 0.02 * step(method, World(), x, cameras, count / 400, count).gradient
    assert abs(float(x.mean()) - 0.4) < 0.05


def test_an_empty_range_of_timesteps_is_refused():
    with pytest.raises(ConfigError, match=r"t_min = 0\.5 exceeds method\.t_max = 0\.98:0\.3 at progress 1"):
        SDS(t_min=flat(0.5), t_max=Ramp(0.98, 0.3))


def test_projection_is_the_brute_force_minimiser():
    """R = argmin_c |eps_c - c eps|, by least squares of each sample, and no c of a fine grid around it does better."""
    eps_c, eps = normal(5, 3, 4, 4, seed=1), normal(5, 3, 4, 4, seed=2)
    r = projection(eps_c, eps)
    assert r.shape == (5, 1, 1, 1)
    for a, b, got in zip(eps_c.flatten(1), eps.flatten(1), r.flatten(), strict=True):
        torch.testing.assert_close(torch.linalg.lstsq(b[:, None], a[:, None]).solution.squeeze(), got)
        around = got + torch.linspace(-1, 1, 2001, dtype=torch.float64)
        assert int((a - around[:, None] * b).norm(dim=1).argmin()) == 1000


def test_adaptive_variance_reduction_subtracts_the_projection(cameras):
    """Of the same draws: g = w (eps_cfg - r eps); at omega = 1 nothing along eps is left."""
    world, latents = World(), normal(4, 3, 2, 2)
    method = SDS(flat(7.5), weighting="uniform", variance_reduction="adaptive")
    got = step(method, world, latents, cameras).gradient
    (asked,) = world.asked["positive"]
    eps = noise_in(world, asked, latents)
    r = (world.exact("positive", asked.x, asked.t) * eps).sum((1, 2, 3)) / (eps * eps).sum((1, 2, 3))
    torch.testing.assert_close(got, world.guided(asked.x, asked.t, 7.5) - r[:, None, None, None] * eps)
    unguided = replace(method, guidance_scale=flat(1.0))
    rest = step(unguided, World(), latents, cameras).gradient
    assert float((rest * eps).sum((1, 2, 3)).abs().max()) < 1e-12


def test_adaptive_variance_reduction_lowers_the_variance(cameras):
    """On data at low noise eps_c is c* eps and little else, c* = sigma^2 / v: subtracting eps leaves (1 - c*)^2."""
    data = 0.4 + 0.3 * normal(4, 3, 16, 16)
    plain, adaptive = (
        SDS(flat(1.0), flat(0.05), flat(0.05), weighting="uniform", variance_reduction=kind)
        for kind in ("none", "adaptive")
    )
    loud, quiet = (
        torch.stack([step(m, World(shape=(3, 16, 16)), data, cameras, seed=seed).gradient for seed in range(50)]).var(0)
        for m in (plain, adaptive)
    )
    alpha, sigma = World().levels(50)
    best = sigma**2 / (alpha**2 * 0.09 + sigma**2)
    assert float(loud.mean()) == pytest.approx(float((1 - best) ** 2), rel=0.05)
    assert float(quiet.mean()) < 0.02 * float(loud.mean())


@pytest.mark.parametrize("group", [1, 4])
def test_a_shared_timestep_is_one_for_all_views(group):
    """As in MVDream's program, from the same range. Otherwise each view, or each group of views, has its own."""

    def drawn(shared: bool, seed: int) -> set[int]:
        world, latents = World(), torch.zeros(8, 3, 2, 2)
        world.view_group = group
        step(SDS(t_min=flat(0.5), t_max=flat(0.504), shared_timestep=shared), world, latents, orbit(8, 8), seed=seed)
        return set(world.asked["positive"][0].t.tolist())

    one, own = ([drawn(shared, seed) for seed in range(60)] for shared in (True, False))
    assert {len(times) for times in one} == {1} and max(map(len, own)) > 1
    assert set().union(*one) == set().union(*own) == set(range(500, 505))


@pytest.mark.parametrize(("progress", "t"), [(0.0, 980), (0.25, 740), (0.5, 500), (1.0, 20)])
def test_linear_annealing_takes_one_timestep_that_falls(progress, t, cameras):
    world = World()
    step(SDS(timesteps="linear-anneal"), world, normal(4, 3, 2, 2), cameras, progress)
    assert world.asked["positive"][0].t.tolist() == [t] * 4


def dreamtime_by_hand(low, high, shares):
    """Eq. 5 and 6 of DreamTime with its published m and s, written as sums: m1 = 800, m2 = 500, s1 = 300, s2 = 100."""
    schedule = plain_schedule()

    def mass(t):
        flank = math.exp(-((t - 800) ** 2) / (2 * 300**2)) if t > 800 else 1.0
        flank = math.exp(-((t - 500) ** 2) / (2 * 100**2)) if t < 500 else flank
        return float(schedule.sigmas[t] / schedule.alphas[t]) * flank

    total = sum(mass(t) for t in range(low, high + 1))
    above, tails = 0.0, {}
    for t in range(high, low - 1, -1):
        above += mass(t)
        tails[t] = above / total
    return [min(tails, key=lambda t: abs(tails[t] - share)) for share in shares]


def test_dreamtime_equals_its_definition(cameras):
    shares = [k / 20 for k in range(21)]
    got = []
    for share in shares:
        world = World()
        step(SDS(timesteps="dreamtime"), world, normal(4, 3, 2, 2), cameras, share)
        (t,) = set(world.asked["positive"][0].t.tolist())  # one for all views
        got.append(t)
    assert got == dreamtime_by_hand(20, 980, shares)
    assert got == sorted(got, reverse=True)
    assert (got[0], got[-1]) == (980, 20)
