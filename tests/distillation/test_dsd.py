"""DSD: its path against diffusers, its two terms in closed form, its shift, and the seed that decides the mode."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import patch

import pytest
import torch
from diffusers import DDIMScheduler
from distillation.common import World, flat, noise_in, normal, step, told

from gsdistill.distillation.dsd import DSD
from gsdistill.prior.analytic import AnalyticPrior, Mixture
from gsdistill.scene.viewpoints import orbit


def at(t, **settings):
    return DSD(**{"guidance_scale": flat(6.5), "timestep": flat(t / 1000), "eta": 0.0, **settings})


@pytest.mark.parametrize(
    ("t", "steps", "path"),
    [(980, 10, [999, 980]), (600, 10, [999, 899, 799, 699, 600]), (599, 10, [999, 899, 799, 699, 599]),
     (999, 10, [999]), (320, 4, [999, 749, 499, 320]), (320, 1, [999, 320]), (0, 3, [999, 666, 333, 0])],
)  # fmt: skip
def test_the_path_asks_at_its_times_above_the_end_and_there(t, steps, path, cameras):
    world = World()
    guidance = step(at(t, path_steps=steps), world, normal(4, 3, 2, 2), cameras).guidance
    assert [asked.t.tolist() for asked in world.asked["positive"]] == [[time] * 4 for time in (*path, t, t)]
    assert [asked.t.tolist() for asked in world.asked["negative"]] == [[time] * 4 for time in (*path, t)]
    assert guidance.evaluations == 4 * (2 * len(path) + 3)


def test_the_path_equals_diffusers_and_begins_at_the_noise_of_the_run(cameras):
    world = World()
    result = step(at(400), world, normal(4, 3, 2, 2), cameras)
    path = world.asked["positive"][:-2]
    torch.testing.assert_close(path[0].x, result.before["noise"].double().expand(4, 3, 2, 2))
    assert result.after is result.before
    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.alphas_cumprod = world.schedule.alphas.square()
    scheduler.set_timesteps(10)
    for now, later in pairwise(path[:-1]):
        noise = world.guided(now.x, now.t, 6.5)
        expected = scheduler.step(noise, int(now.t[0]), now.x).prev_sample
        torch.testing.assert_close(later.x, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_both_terms_have_the_noise_that_the_path_finds(share, cameras):
    """g = sigma_t^2 (eps_u + omega h - eps_c(x_{t+d})), eps = eps_u + omega h at the end of the path, at t + d."""
    world, latents = World(), normal(4, 3, 2, 2)
    with patch.object(torch, "rand", lambda *_, **__: torch.tensor([share])):
        result = step(at(500, eta=0.5), world, latents, cameras)
    *_, end, first, later = world.asked["positive"]
    shift = int(0.5 * (500 - 320) * share)
    assert (end.t.tolist(), first.t.tolist(), later.t.tolist()) == ([500 + shift] * 4, [500] * 4, [500 + shift] * 4)
    eps = world.guided(end.x, end.t, 6.5)
    torch.testing.assert_close(noise_in(world, first, latents), eps)
    torch.testing.assert_close(noise_in(world, later, latents), eps)
    reference = world.exact("positive", later.x, later.t)
    expected = world.levels(500)[1] ** 2 * (world.guided(first.x, 500, 6.5) - reference)
    torch.testing.assert_close(result.gradient, expected)
    assert float(result.guidance.figures["shift"]) == shift


def test_the_guided_reference_differs_where_there_is_perp_neg(cameras):
    latents, weights = normal(4, 3, 2, 2), torch.tensor([[-1.0, -0.4]]).repeat(4, 1)
    for condition, evaluations in ((told(cameras), (9, 10)), (told(cameras, weights), (17, 20))):
        plain, guided = (
            step(at(600, path_steps=4, reference=kind), World(), latents, cameras, condition=condition)
            for kind in ("conditional", "guided")
        )
        assert (plain.guidance.evaluations, guided.guidance.evaluations) == tuple(4 * each for each in evaluations)
        same = torch.allclose(plain.gradient, guided.gradient, rtol=1e-10, atol=1e-12)
        assert same == (condition.perp_weights.shape[1] == 0)


@pytest.mark.slow
@pytest.mark.parametrize(("t", "most"), [(820, 179), (420, 100), (320, 0), (200, 0)])
def test_the_shift_is_uniform_in_what_eta_and_the_schedule_leave(t, most):
    """At eta = 1: up to t - 320, or to 999 - t, clipped before the draw; never below t."""
    method, found = at(t, eta=1.0, path_steps=1), []
    for seed in range(150 if most else 5):
        guidance = step(method, World(shape=(1, 1, 1)), normal(1, 1, 1, 1), orbit(1, 8), seed=seed).guidance
        found.append(float(guidance.figures["shift"]))
    if most == 0:
        assert set(found) == {0.0}
        return
    share = (torch.tensor(found).sort().values + 0.5) / most
    ranks = (torch.arange(150) + 0.5) / 150
    assert float((share - ranks).abs().max()) < 1.63 / 150**0.5  # Kolmogorov-Smirnov at 1 %


@pytest.mark.parametrize(("progress", "t"), [(0.0, 980), (0.25, 650), (1.0, 320)])
def test_the_timestep_falls_as_a_square_root(progress, t, cameras):
    world = World()
    step(DSD(), world, normal(4, 3, 2, 2), cameras, progress)
    assert world.asked["positive"][-2].t.tolist() == [t] * 4


@pytest.mark.slow
def test_the_noise_of_the_run_decides_the_mode():
    """Between two modes at -1 and 1, the side of the noise is that of the result, whatever the steps draw."""
    modes = Mixture.of_images(torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 2, 1, 1))
    told_one = Mixture(modes.weights, modes.means, torch.full((2,), 0.1, dtype=torch.float64))
    untold = Mixture(torch.ones(1).double(), torch.zeros(1, 2).double(), torch.ones(1).double())
    method, ends = DSD(flat(2.0), path_steps=4, weighting="uniform"), []
    for side in (-1.0, 1.0):
        for draws in (0, 1):
            prior = AnalyticPrior(told_one, untold, (2, 1, 1))
            x, state = torch.zeros(1, 2, 1, 1).double(), {"noise": side * torch.tensor([[[0.9]], [[0.4]]])}
            for count in range(40):
                guidance = step(method, prior, x, orbit(1, 8), count / 40, 1000 * draws + count, state).guidance
                x = x - 0.3 * guidance.gradient
            ends.append(side * float(x.mean()))
    assert min(ends) > 0.5
