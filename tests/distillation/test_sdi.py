"""SDI: its inversion as rotations and against diffusers, its noise, and the closed form of its gradient."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from distillation.common import World, flat, noise_in, normal, step

from gsdistill.distillation.sdi import SDI

SHAPE = (3, 32, 32)


def at(t, eta=0.0, inverse=0.0, omega=8.5, steps=10):
    return SDI(flat(omega), inverse, steps, eta, flat(t / 1000))


def questions(method, latents, cameras, seed=0, world=None):
    """The places of the inversion, the last one, and the gradient."""
    world = World(shape=tuple(latents.shape[1:])) if world is None else world
    result = step(method, world, latents, cameras, seed=seed)
    return world, world.asked["positive"][:-1], world.asked["positive"][-1], result


def turned(world, a, b):
    """The cosine by which DDIM goes from a to b on data N(0, 1)."""
    (alpha, sigma), (alpha_to, sigma_to) = world.levels(a), world.levels(b)
    return alpha * alpha_to + sigma * sigma_to


@pytest.mark.parametrize(
    ("t", "steps", "times"),
    [(980, 10, [0, *range(1, 1000, 100)]), (302, 10, [0, 1, 101, 201, 301]), (301, 10, [0, 1, 101, 201]),
     (20, 10, [0, 1]), (1, 10, [0]), (500, 4, [0, 1, 251]), (999, 3, [0, 1, 334, 667])],
)  # fmt: skip
def test_the_inversion_asks_at_zero_and_one_above_multiples_below_t(t, steps, times, cameras):
    _, up, last, result = questions(at(t, steps=steps), normal(4, 3, 2, 2), cameras)
    assert [asked.t.tolist() for asked in up] == [[time] * 4 for time in times]
    assert last.t.tolist() == [t] * 4
    assert result.guidance.evaluations == 8 * (len(times) + 1)


def test_inversion_of_standard_normal_data_turns_by_the_angle_between_the_levels(cameras):
    """Data N(0, 1), omega_inv 0: eps = sigma x. The first step starts at the noise level of time 0."""
    latents = normal(4, 3, 2, 2)
    world, up, _, _ = questions(at(555), latents, cameras)
    assert torch.equal(up[0].x, latents)
    for now, later in pairwise(up):
        torch.testing.assert_close(later.x, turned(world, now.t, later.t) * now.x)


def test_the_last_step_ends_up_to_a_stride_above_t(cameras):
    """At t + U{0 .. 99}, found here from the angle; what is found there is used at t."""
    found = set()
    for seed in range(80):
        world, up, last, _ = questions(at(350), normal(4, 3, 2, 2), cameras, seed)
        cosines = turned(world, torch.tensor([301]), torch.arange(1000)).flatten()
        ratio = (last.x / up[-1].x).flatten()
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
        offset = (cosines - ratio[0]).abs()
        offset[:301] = 9.0  # the angle grows only upwards
        assert float(offset.min()) < 1e-12
        found.add(int(offset.argmin()) - 350)
    assert 0 <= min(found) < 10 and 90 <= max(found) <= 99


def test_inversion_equals_diffusers(cameras):
    """Its first step is from time -99, which has the noise level of 0 in Stable Diffusion's scheduler."""
    world, up, _, _ = questions(at(980, inverse=-6.5), normal(4, 3, 2, 2), cameras)
    scheduler = DDIMInverseScheduler(clip_sample=False)
    scheduler.alphas_cumprod = world.schedule.alphas.square()
    scheduler.initial_alpha_cumprod = scheduler.alphas_cumprod[0]  # set_alpha_to_one is false
    scheduler.set_timesteps(10)
    for now, later in pairwise(up):
        noise = world.guided(now.x, now.t, -6.5)
        expected = scheduler.step(noise, int(later.t[0]), now.x).prev_sample
        torch.testing.assert_close(later.x, expected, rtol=1e-10, atol=1e-12)


def test_the_inversion_adds_the_noise_of_ddpm(cameras):
    """Deviation eta times that of DDPM between the two levels, as diffusers computes it, in the first step too."""
    world, up, _, _ = questions(at(980, eta=0.3), normal(4, *SHAPE), cameras)
    scheduler = DDIMScheduler()
    scheduler.alphas_cumprod = world.schedule.alphas.square()
    added = []
    for now, later in pairwise(up):
        a, b = int(now.t[0]), int(later.t[0])
        rest = later.x - turned(world, a, b) * now.x
        added.append(rest / (0.3 * scheduler._get_variance(b, a) ** 0.5))
    for noise in added:
        assert abs(float(noise.mean())) < 4 / noise.numel() ** 0.5
        assert abs(float(noise.var()) - 1) < 4 * (2 / noise.numel()) ** 0.5
    assert abs(float((added[0] * added[1]).mean())) < 4 / added[0].numel() ** 0.5


@pytest.mark.parametrize("t", [980, 420, 20])
def test_gradient_is_the_way_from_the_guided_clean_latents(t, cameras):
    """With w = sigma / alpha:  g = x0 - (x_t - sigma eps_cfg(x_t)) / alpha."""
    latents = normal(4, 3, 2, 2)
    world, _, last, result = questions(at(t, eta=0.3, inverse=-6.5), latents, cameras)
    alpha, sigma = world.levels(t)
    clean = (last.x - sigma * world.guided(last.x, t, 8.5)) / alpha
    torch.testing.assert_close(result.gradient, latents - clean, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", [980, 420, 20])
def test_remapped_noise_is_that_of_the_last_time_and_kappa_is_what_is_in_x_t(t, cameras):
    """The same seed inverts to the same place: x of the last time without ``remap``, its noise put in at t with it."""
    latents = normal(4, 3, 2, 2)
    world, up, found, _ = questions(at(t, eta=0.3), latents, cameras)
    remapped = replace(at(t, eta=0.3), remap=True)
    _, same, last, result = questions(remapped, latents, cameras, world=(again := World()))
    assert torch.equal(up[-1].x, same[-1].x)
    kappa = noise_in(again, last, latents)
    times = torch.arange(t, min(t + 100, 1000))
    alphas, sigmas = world.levels(times)
    away = (alphas * latents[0] + sigmas * kappa[0] - found.x[0]).abs().amax((1, 2, 3))
    assert float(away.min()) < 1e-12  # of the last time, which is one of these
    _, sigma = world.levels(t)
    expected = sigma / world.levels(t)[0] * (again.guided(last.x, t, 8.5) - kappa)
    torch.testing.assert_close(result.gradient, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", [980, 420, 20])
@pytest.mark.parametrize("eta", [0.0, 0.3])
def test_one_step_reaches_the_only_picture_of_a_world(t, eta, cameras):
    """All data at mu: the clean latents are mu wherever the inversion ended, so g = x0 - mu."""
    latents = normal(4, 3, 2, 2)
    point = World(means=(0.4,) * 4, deviations=(0.0,) * 4)
    *_, result = questions(at(t, eta), latents, cameras, world=point)
    torch.testing.assert_close(result.gradient, latents - 0.4, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("progress", "t"), [(0.0, 980), (0.5, 615), (1.0, 250)])
def test_one_timestep_falls_with_progress(progress, t, cameras):
    world = World()
    step(SDI(), world, normal(4, 3, 2, 2), cameras, progress)
    assert world.asked["positive"][-1].t.tolist() == [t] * 4
