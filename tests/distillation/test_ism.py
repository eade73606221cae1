"""ISM: DDIM inversion against diffusers and as rotations, its timesteps, and the gradient from them."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMInverseScheduler
from distillation.common import World, flat, normal, step

from gsdistill.distillation.ism import ISM
from gsdistill.settings.ramp import Ramp


def at(t, interval=0.1, stride=0.2, omega=7.5):
    return ISM(flat(omega), flat(interval), stride, flat(t / 1000), flat(t / 1000))


def inversion(world):
    """What the empty prompt was asked on the way up, in order; the last question belongs to the guided noise at t."""
    return world.asked["negative"][:-1], world.asked["negative"][-1]


@pytest.mark.parametrize(
    ("t", "interval", "times"),
    [
        (980, 0.1, [0, 200, 400, 600, 800, 880]),
        (500, 0.1, [0, 200, 400]),
        (450, 0.05, [0, 200, 400]),
        (321, 0.1, [0, 200, 221]),
        (301, 0.1, [0, 200, 201]),
        (101, 0.1, [0, 1]),
        (100, 0.1, [0]),
        (20, 0.1, [0]),
        (0, 0.1, [0]),
    ],
)
def test_the_inversion_strides_to_s_and_then_to_t(t, interval, times, cameras):
    world = World()
    guidance = step(at(t, interval), world, normal(4, 3, 2, 2), cameras).guidance
    up, last = inversion(world)
    assert [asked.t.tolist() for asked in up] == [[time] * 4 for time in times]
    assert last.t.tolist() == [t] * 4
    assert torch.equal(last.x, world.asked["positive"][0].x)
    assert len(world.asked["positive"]) == 1
    assert guidance.evaluations == 4 * (len(times) + 2)


def test_inversion_equals_diffusers(cameras):
    """Equal steps of 200: DDIMInverseScheduler of 5 steps, exact as far as its levels are."""
    world = World()
    step(at(600, interval=0.2), world, normal(4, 3, 2, 2), cameras)
    up, last = inversion(world)
    scheduler = DDIMInverseScheduler(clip_sample=False)
    scheduler.alphas_cumprod = world.schedule.alphas.square()
    scheduler.set_timesteps(5)
    sample = up[0].x
    for now, later in zip(up, [*up[1:], last], strict=True):
        noise = world.exact("negative", sample, now.t)
        sample = scheduler.step(noise, int(later.t[0]), sample).prev_sample
        torch.testing.assert_close(later.x, sample, rtol=1e-10, atol=1e-12)


def test_inversion_of_standard_normal_data_turns_by_the_angle_between_the_levels(cameras):
    """Data N(0, 1): eps_u = sigma x, so from a to b x is multiplied by a cosine, alpha_a alpha_b + sigma_a sigma_b."""
    world = World()
    step(at(789), world, normal(4, 3, 2, 2), cameras)
    up, last = inversion(world)
    for now, later in zip(up, [*up[1:], last], strict=True):
        (alpha, sigma), (alpha_to, sigma_to) = world.levels(now.t), world.levels(later.t)
        torch.testing.assert_close(later.x, (alpha * alpha_to + sigma * sigma_to) * now.x)


@pytest.mark.parametrize("t", [700, 250, 60])
def test_gradient_in_closed_form(t, cameras):
    """g = sigma_t / alpha_t (eps_cfg(x_t) - eps_u(x_s)), x_s the last place but one."""
    world = World()
    gradient = step(at(t), world, normal(4, 3, 2, 2), cameras).gradient
    up, last = inversion(world)
    alpha, sigma = world.levels(t)
    expected = sigma / alpha * (world.guided(last.x, t, 7.5) - world.exact("negative", up[-1].x, up[-1].t))
    torch.testing.assert_close(gradient, expected)


def test_the_inversion_begins_with_the_trace_of_noise_at_timestep_zero(cameras):
    world, latents = World(shape=(3, 32, 32)), normal(4, 3, 32, 32)
    step(at(500), world, latents, cameras)
    alpha, sigma = world.levels(0)
    eps = (inversion(world)[0][0].x - alpha * latents) / sigma
    assert abs(float(eps.mean())) < 4 / eps.numel() ** 0.5
    assert abs(float(eps.var()) - 1) < 4 * (2 / eps.numel()) ** 0.5


def test_where_all_data_is_one_point_nothing_is_left_anywhere(cameras):
    """Eps is constant along the inversion: ISM sees the curvature of its path only, and here it is straight."""
    point = World(means=(0.4,) * 4, deviations=(0.0,) * 4)
    gradient = step(at(700), point, normal(4, 3, 2, 2), cameras).gradient
    assert float(gradient.abs().max()) < 1e-10


@pytest.mark.parametrize(
    ("progress", "interval", "high"), [(0.0, 100, 980), (0.15, 90, 740), (0.3, 80, 500), (1.0, 80, 500)]
)
def test_interval_and_range_anneal_over_the_first_part_of_the_run(progress, interval, high, cameras):
    tops = []
    for seed in range(60):
        world = World(shape=(1, 1, 1))
        step(ISM(), world, normal(4, 1, 1, 1), cameras, progress, seed)
        up, last = inversion(world)
        t, s = int(last.t[0]), int(up[-1].t[0])
        assert s == max(t - interval, 0)
        tops.append(t)
    assert 20 <= min(tops) < 20 + 0.15 * high
    assert 0.85 * high < max(tops) <= high


def test_published_schedules():
    assert ISM().interval == Ramp(0.1, 0.08, until=0.3)
    assert ISM().t_max == Ramp(0.98, 0.5, until=0.3)
    assert ISM().weighting == "snr"
