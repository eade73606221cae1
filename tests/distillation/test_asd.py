"""ASD in closed form on Gaussian data, and its shift of the timestep."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from distillation.common import World, flat, noise_in, normal, step, told

from gsdistill.distillation.asd import ASD
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.ramp import Ramp

MANY = 400


def shifts(method, progress=0.0, seed=0):
    """Timesteps and shifts of many views."""
    world = World(shape=(1, 1, 1))
    step(method, world, normal(MANY, 1, 1, 1), orbit(MANY, 8), progress, seed)
    first, later = world.asked["positive"]
    return first.t, later.t - first.t


def test_gradient_in_closed_form(cameras):
    """g = sigma_t^2 (eps_u + omega h - eps_c(x_{t+d})): one eps in both, no guidance in the second."""
    world, latents = World(), normal(4, 3, 2, 2)
    result = step(ASD(flat(7.5), eta=0.5), world, latents, cameras)
    first, later = world.asked["positive"]
    eps = noise_in(world, first, latents)
    torch.testing.assert_close(noise_in(world, later, latents), eps)
    assert int((later.t - first.t).max()) > 0
    reference = world.exact("positive", later.x, later.t)
    expected = world.levels(first.t)[1] ** 2 * (world.guided(first.x, first.t, 7.5) - reference)
    torch.testing.assert_close(result.gradient, expected)
    assert len(world.asked["negative"]) == 1  # the empty prompt is not asked at the later timestep


@pytest.mark.parametrize("eta", [0.0, 0.2])
def test_expectation_on_a_point_of_data(eta, cameras):
    """All data at mu: eps_c(x_t) - eps_c(x_{t+d}) = (1 / s_t - 1 / s_{t+d}) (x0 - mu), whatever eps is."""
    point, latents = World(means=(0.4,) * 4, deviations=(0.0,) * 4), normal(4, 3, 2, 2)
    method = ASD(flat(1.0), eta=eta, random_shift=False, t_min=flat(0.1), t_max=flat(0.5), weighting="uniform")
    gradient = step(method, point, latents, cameras).gradient
    first, later = point.asked["positive"]
    inverse = [alpha / sigma for alpha, sigma in map(point.levels, (first.t, later.t))]
    torch.testing.assert_close(gradient, (inverse[0] - inverse[1]) * (latents - 0.4), rtol=1e-9, atol=1e-12)
    assert bool((inverse[0] >= inverse[1]).all())  # descending goes to mu


@pytest.mark.parametrize("random_shift", [True, False])
def test_without_shift_and_guidance_nothing_is_left(random_shift, cameras):
    method = ASD(flat(1.0), eta=0.0, random_shift=random_shift)
    gradient = step(method, World(), normal(4, 3, 2, 2), cameras).gradient
    assert float(gradient.abs().max()) < 1e-14


@pytest.mark.parametrize("eta", [0.1, 0.37, 1.0])
def test_the_whole_shift_is_eta_of_the_way_from_the_lowest_timestep(eta):
    for progress, low in ((0.0, 500), (1.0, 20)):
        t, shift = shifts(ASD(eta=eta, random_shift=False), progress)
        whole = [min(int(eta * (int(now) - low) + 1e-9), 999 - int(now)) for now in t]
        assert shift.tolist() == whole
        assert int(t.min()) >= low


def test_random_shifts_are_uniform_and_truncated():
    t, shift = shifts(ASD(eta=1.0, t_min=flat(0.0), t_max=flat(0.5)))
    far = t > 100
    share = (shift[far] / t[far]).sort().values
    assert int(shift.min()) >= 0 and bool((shift <= t).all())
    ranks = (torch.arange(len(share)) + 0.5) / len(share)
    assert float((share + 0.5 / 300 - ranks).abs().max()) < 1.63 / len(share) ** 0.5  # Kolmogorov-Smirnov at 1 %


def test_a_shift_that_the_schedule_cuts_is_uniform_in_what_is_left():
    """U multiplies what T - 1 leaves. A shift that is cut after the draw would mostly be all of it."""
    t, shift = shifts(ASD(eta=1.0, t_min=flat(0.0), t_max=flat(1.0)))
    high = (t > 520) & (t < 950)
    share = (shift[high] / (999 - t[high])).sort().values
    assert len(share) > 100
    ranks = (torch.arange(len(share)) + 0.5) / len(share)
    assert float((share + 0.5 / 250 - ranks).abs().max()) < 1.63 / len(share) ** 0.5  # Kolmogorov-Smirnov at 1 %


def test_the_later_timestep_stays_in_the_schedule():
    t, shift = shifts(ASD(eta=1.0, random_shift=False, t_min=flat(0.0), t_max=flat(1.0)))
    assert int((t + shift).max()) == 999


@pytest.mark.parametrize(("progress", "low", "high"), [(0.0, 500, 980), (0.5, 260, 740), (1.0, 20, 500)])
def test_the_range_of_timesteps_falls(progress, low, high):
    t, _ = shifts(ASD(), progress)
    assert low <= int(t.min()) < low + 10
    assert high - 10 < int(t.max()) <= high


def test_perp_neg_weights_are_scaled(cameras):
    """Half of the weights is the whole weights of half the factor; five evaluations a view."""
    latents, weights = normal(4, 3, 2, 2), torch.tensor([[-1.0, -0.4]]).repeat(4, 1)
    half, same, none = (
        step(replace(ASD(), perp_neg=factor), World(), latents, cameras, condition=told(cameras, w))
        for factor, w in ((0.5, weights), (1.0, weights / 2), (0.0, weights))
    )
    torch.testing.assert_close(half.gradient, same.gradient)
    assert half.guidance.evaluations == 20
    plain = step(ASD(), World(), latents, cameras)
    torch.testing.assert_close(none.gradient, plain.gradient)


def test_figures_are_the_means(cameras):
    world = World()
    figures = step(ASD(t_min=Ramp(0.1, 0.1)), world, normal(4, 3, 2, 2), cameras).guidance.figures
    first, later = world.asked["positive"]
    assert float(figures["timestep"]) == pytest.approx(float(first.t.double().mean()))
    assert float(figures["shift"]) == pytest.approx(float((later.t - first.t).double().mean()))
