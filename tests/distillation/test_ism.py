"""ISM: DDIM inversion against diffusers and as rotations, its timesteps and text, and the gradient from them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMInverseScheduler
from distillation.common import World, flat, normal, step, told

from gsdistill.core.errors import ConfigError
from gsdistill.distillation.ism import ISM
from gsdistill.settings.ramp import Ramp


def at(t, interval=0.1, stride=0.2, omega=7.5, **more):
    """ISM at the timestep t alone: the program draws the index t - 1."""
    only = flat((t - 1) / 1000)
    return ISM(flat(omega), flat(interval), stride, only, only, **{"noise_offset": 0.0, **more})


def inversion(world):
    """What the empty prompt was asked on the way up, in order; the last question belongs to the guided noise at t."""
    return world.asked["negative"][:-1], world.asked["negative"][-1]


@pytest.mark.parametrize(
    ("t", "interval", "times"),
    [
        (980, 0.1, [1, 201, 401, 601, 801, 880]),
        (501, 0.1, [1, 201, 401]),
        (451, 0.05, [1, 201, 401]),
        (321, 0.1, [1, 201, 221]),
        (302, 0.1, [1, 201, 202]),
        (301, 0.1, [1, 201]),
        (102, 0.1, [1, 2]),
        (101, 0.1, [1]),
        (21, 0.1, [1]),
        (1, 0.1, [1]),
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


@pytest.mark.parametrize(("steps", "times"), [(5, [1, 201, 401, 601]), (2, [201, 401, 601]), (1, [401, 601])])
def test_of_too_few_steps_the_last_ones_are_taken(steps, times, cameras):
    world = World()
    step(at(701, xs_inv_steps=steps), world, normal(4, 3, 2, 2), cameras)
    assert [int(asked.t[0]) for asked in inversion(world)[0]] == times


def test_without_a_limit_there_are_as_many_steps_as_the_stride_asks_for(cameras):
    world = World()
    step(at(701, stride=0.05, xs_inv_steps=None), world, normal(4, 3, 2, 2), cameras)
    assert [int(asked.t[0]) for asked in inversion(world)[0]] == [*range(1, 602, 50)]


def test_inversion_equals_diffusers(cameras):
    """Equal steps of 200 from timestep 1: DDIMInverseScheduler of 5 steps, exact as far as its levels are."""
    world = World()
    step(at(601, interval=0.2), world, normal(4, 3, 2, 2), cameras)
    up, last = inversion(world)
    scheduler = DDIMInverseScheduler(clip_sample=False, steps_offset=1)
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
    """g = lambda sigma_t / alpha_t (eps_cfg(x_t) - eps_empty(x_s)), x_s the last place but one."""
    world = World()
    gradient = step(at(t, lambda_guidance=0.1), world, normal(4, 3, 2, 2), cameras).gradient
    up, last = inversion(world)
    alpha, sigma = world.levels(t)
    expected = 0.1 * sigma / alpha * (world.guided(last.x, t, 7.5) - world.exact("negative", up[-1].x, up[-1].t))
    torch.testing.assert_close(gradient, expected)


def test_the_inversion_asks_for_no_words_and_the_guidance_for_the_negative_prompt(cameras):
    """The negative prompt is another Gaussian than that of no words."""
    world, condition = World(), told(cameras, negative="perp0")
    gradient = step(at(500), world, normal(4, 3, 2, 2), cameras, condition=condition).gradient
    assert [int(asked.t[0]) for asked in world.asked["negative"]] == [1, 201, 400]
    (last,) = world.asked["perp0"]
    alpha, sigma = world.levels(500)
    conditional, negative = (world.exact(name, last.x, 500) for name in ("positive", "perp0"))
    guided = negative + 7.5 * (conditional - negative)
    torch.testing.assert_close(
        gradient, sigma / alpha * (guided - world.exact("negative", world.asked["negative"][-1].x, 400))
    )


def test_the_inversion_can_ask_for_the_negative_prompt(cameras):
    world, condition = World(), told(cameras, negative="perp0")
    step(at(500, inversion="negative"), world, normal(4, 3, 2, 2), cameras, condition=condition)
    assert [int(asked.t[0]) for asked in world.asked["perp0"]] == [1, 201, 400, 500]
    assert not world.asked["negative"]


def test_the_reversed_guidance_leads_from_no_words_past_the_negative_prompt(cameras):
    """e = eps_empty + 2 (eps_negative - eps_empty): the DDIM step from s to t, and what is subtracted."""
    world, condition = World(), told(cameras, negative="perp0")
    method = at(101, denoise_guidance_scale=2.0)
    result = step(method, world, normal(4, 3, 2, 2), cameras, condition=condition)
    (empty,), (_, last) = world.asked["negative"], world.asked["perp0"]
    e = 2 * world.exact("perp0", empty.x, 1) - world.exact("negative", empty.x, 1)
    (alpha, sigma), (alpha_t, sigma_t) = world.levels(1), world.levels(101)
    torch.testing.assert_close(last.x, alpha_t * (empty.x - sigma * e) / alpha + sigma_t * e)
    conditional, negative = (world.exact(name, last.x, 101) for name in ("positive", "perp0"))
    torch.testing.assert_close(
        result.gradient, sigma_t / alpha_t * (negative + 7.5 * (conditional - negative) - e), rtol=1e-9, atol=1e-11
    )
    assert result.guidance.evaluations == 4 * (2 + 2)


def test_a_reversed_guidance_needs_the_empty_prompt():
    with pytest.raises(ConfigError, match="inversion: empty"):
        ISM(inversion="negative", denoise_guidance_scale=1.5)


@pytest.mark.parametrize("eta", [0.2, 50.0])
def test_steps_with_eta_keep_the_noise_level(eta, cameras):
    """All data is 0, so x is noise of deviation sigma at s, whatever share of it was drawn anew; at most half is."""
    point = World(means=(0.0,) * 4, deviations=(0.0,) * 4, shape=(3, 32, 32))
    step(at(801, interval=0.4, xs_eta=eta), point, torch.zeros(4, 3, 32, 32, dtype=torch.float64), cameras)
    first, *_, there = inversion(point)[0]
    sigma, start = (float(point.levels(asked.t[:1])[1]) for asked in (there, first))
    count = there.x.numel()
    assert abs(float(there.x.std()) / sigma - 1) < 4 / (2 * count) ** 0.5
    kept = float((there.x * first.x).mean()) / (sigma * start)
    assert kept < 0.999 if eta < 1 else abs(kept - 0.5) < 4 / count**0.5  # two steps, each with the root of a half


def test_the_inversion_begins_with_the_trace_of_noise_at_timestep_one(cameras):
    world, latents = World(shape=(3, 32, 32)), normal(4, 3, 32, 32)
    step(at(500), world, latents, cameras)
    alpha, sigma = world.levels(1)
    eps = (inversion(world)[0][0].x - alpha * latents) / sigma
    assert abs(float(eps.mean())) < 4 / eps.numel() ** 0.5
    assert abs(float(eps.var()) - 1) < 4 * (2 / eps.numel()) ** 0.5


def test_the_first_noise_has_an_offset_a_channel_that_all_views_share(cameras):
    latents, starts = normal(4, 3, 32, 32), []
    for offset in (0.0, 5.0):
        world = World(shape=(3, 32, 32))
        step(at(500, noise_offset=offset), world, latents, cameras)
        starts.append(inversion(world)[0][0].x)
    added = (starts[1] - starts[0]) / world.levels(1)[1] / 5.0
    torch.testing.assert_close(added, added[:1, :, :1, :1].expand_as(added))
    assert len({round(float(channel), 6) for channel in added[0, :, 0, 0]}) == 3
    drawn = []
    for seed in range(200):
        world = World(shape=(3, 1, 1))
        step(at(21, noise_offset=1e6), world, torch.zeros(4, 3, 1, 1, dtype=torch.float64), cameras, seed=seed)
        drawn.append(inversion(world)[0][0].x[0] / world.levels(1)[1][0] / 1e6)
    spread = torch.stack(drawn)
    assert abs(float(spread.std()) - 1) < 4 / (2 * spread.numel()) ** 0.5
    assert ISM().noise_offset == 0.1


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
        assert s == max(t - interval, 1)
        tops.append(t)
    assert 21 <= min(tops) < 20 + 0.15 * high
    assert 0.85 * high < max(tops) <= high


def test_the_index_is_drawn_without_the_upper_end(cameras):
    """From 20 to 21 of 1000 there is the index 20 alone: t = 21."""
    method = replace(ISM(), t_min=flat(0.02), t_max=flat(0.021))
    for seed in range(10):
        assert float(step(method, World(), normal(4, 3, 2, 2), cameras, seed=seed).guidance.figures["timestep"]) == 21
    method = replace(method, t_max=flat(0.022))
    seen = {
        float(step(method, World(), normal(4, 3, 2, 2), cameras, seed=seed).guidance.figures["timestep"])
        for seed in range(20)
    }
    assert seen == {21, 22}


def test_published_schedules():
    assert ISM().interval == Ramp(0.1, 0.08, until=0.3)
    assert ISM().t_max == Ramp(0.98, 0.5, until=0.3)
    assert ISM().weighting == "snr"
