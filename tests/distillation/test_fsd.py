"""FSD: it is DDIM; noise by camera, background and share of fresh noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler
from distillation.common import World, flat, noise_in, normal, step

from gsdistill.distillation import worldmap
from gsdistill.distillation.fsd import FSD
from gsdistill.distillation.sds import SDS
from gsdistill.laboratory.descent import Descent, Setup, descend, independent
from gsdistill.prior.analytic import plain_schedule
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.ramp import Ramp

AT_300 = FSD(flat(7.5), flat(0.3), background="same")
SHAPE = (3, 16, 16)


def seen(method, latents, cameras, seed=0, state=None, alpha=1.0):
    """The noise of one step, and the step."""
    world = World(shape=tuple(latents.shape[1:]))
    result = step(method, world, latents, cameras, seed=seed, state=state, alpha=alpha)
    return noise_in(world, world.asked["positive"][0], latents), result


@pytest.mark.parametrize("noise", ["fixed", "world-map"])
@pytest.mark.parametrize("omega", [1.0, 7.5])
def test_is_ddim_sampling(noise, omega, cameras):
    """From theta = 0 by steps of s_t - s_t': theta + s eps(c) is alpha's share of DDIM's sample at all 50 timesteps."""
    world, latents = World(), torch.zeros(4, 3, 2, 2, dtype=torch.float64)
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=True)
    scheduler.alphas_cumprod = world.schedule.alphas.square()
    scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    scheduler.set_timesteps(50)
    times = scheduler.timesteps.tolist()
    method = FSD(flat(omega), noise=noise, background="same", weighting="uniform")
    eps, first = seen(replace(method, timestep=flat(times[0] / 1000)), latents, cameras)
    sample = world.levels(times[0])[1] * eps
    for t, after in zip(times, [*times[1:], None], strict=True):
        g = step(replace(method, timestep=flat(t / 1000)), world, latents, cameras, state=first.before).gradient
        sample = scheduler.step(world.guided(sample, t, omega), t, sample).prev_sample
        ratios = [sigma / alpha for alpha, sigma in map(world.levels, (t, after or 0))]
        s_after = ratios[1] if after is not None else torch.zeros(())
        latents = latents + (s_after - ratios[0]) * g
        alpha = world.levels(after)[0] if after is not None else 1.0
        torch.testing.assert_close(alpha * (latents + s_after * eps), sample, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(latents, sample, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("omega", [1.0, 7.5])
def test_with_the_weight_pf_ode_a_descent_in_two_dimensions_is_ddim(omega):
    """Plain steps of size 1 along the whole schedule, at 0 to begin with: their end is diffusers' sample."""
    world = World(schedule=plain_schedule(50), shape=(3, 4, 4))
    scheduler = DDIMScheduler(50, clip_sample=False, set_alpha_to_one=True, timestep_spacing="leading")
    scheduler.alphas_cumprod = world.schedule.alphas.square()
    scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    scheduler.set_timesteps(50)
    assert scheduler.timesteps.tolist() == list(range(49, -1, -1))
    method = FSD(flat(omega), Ramp(0.98, 0.0), noise="fixed", background="same", weighting="pf-ode")
    state = independent(method, world, range(4))
    sample = world.levels(49)[1] * state["noise"].double()
    for t in scheduler.timesteps.tolist():
        sample = scheduler.step(world.guided(sample, t, omega), t, sample).prev_sample
    setup = Setup(world, world.encode_text("", ""), orbit(4, 8))
    how = Descent(50, optimiser="sgd", rate=flat(1.0))
    start = torch.zeros_like(sample)
    end = descend(method, setup, start, how, torch.Generator(), state).end
    torch.testing.assert_close(end, sample, rtol=1e-10, atol=1e-12)
    other = descend(replace(method, weighting="sds"), setup, start, how, torch.Generator(), state).end
    assert float((other - sample).abs().max()) > 0.01


def test_gradient_in_closed_form(cameras):
    world, latents = World(), normal(4, 3, 2, 2)
    gradient = step(AT_300, world, latents, cameras).gradient
    asked = world.asked["positive"][0]
    eps = noise_in(world, asked, latents)
    expected = world.levels(300)[1] ** 2 * (world.guided(asked.x, 300, 7.5) - eps)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(("progress", "t"), [(0.0, 980), (0.5, 500), (1.0, 20)])
def test_one_timestep_falls_with_progress(progress, t, cameras):
    world = World()
    step(FSD(), world, normal(4, 3, 2, 2), cameras, progress)
    assert world.asked["positive"][0].t.tolist() == [t] * 4


def test_a_camera_sees_its_window_at_every_step(cameras):
    latents = normal(4, *SHAPE)
    eps, first = seen(AT_300, latents, cameras)
    window = worldmap.crop(first.before["noise"], SHAPE, cameras)
    torch.testing.assert_close(eps, window.double(), rtol=1e-5, atol=1e-5)
    again, second = seen(AT_300, latents + 1, cameras, seed=9, state=first.after)
    torch.testing.assert_close(again, eps)
    assert not torch.equal(eps[0], eps[1])
    fixed, third = seen(replace(AT_300, noise="fixed"), latents, cameras)
    torch.testing.assert_close(fixed, third.before["noise"].double().expand(4, *SHAPE), rtol=1e-5, atol=1e-5)
    assert second.after.keys() == third.after.keys() == {"noise", "background"}


def test_a_batch_of_views_is_its_views_one_by_one(cameras):
    """Without fresh noise a gradient is a function of the view alone."""
    latents = normal(4, *SHAPE)
    _, whole = seen(FSD(), latents, cameras)
    for index in range(4):
        one = orbit(4, 8)
        one = type(one)(**{
            name: value[index : index + 1] if isinstance(value, torch.Tensor) else value
            for name, value in vars(one).items()
        })  # fmt: skip
        _, alone = seen(FSD(), latents[index : index + 1], one, seed=5, state=whole.before)
        torch.testing.assert_close(alone.gradient[0], whole.gradient[index])


def test_where_the_render_is_empty_the_noise_is_the_backgrounds(cameras):
    """Pooled opacity below 1/2, place by place."""
    latents = normal(4, *SHAPE)
    alpha = torch.rand(4, 1, *SHAPE[1:], generator=torch.Generator().manual_seed(2))
    alpha[0], alpha[1], alpha[2] = 0.0, 0.4999, 0.5
    eps, result = seen(replace(AT_300, background="fixed"), latents, cameras, alpha=alpha)
    window = worldmap.crop(result.before["noise"], SHAPE, cameras)
    behind = result.before["background"].expand(4, *SHAPE)
    expected = torch.where(alpha < 0.5, behind, window).double()
    torch.testing.assert_close(eps, expected, rtol=1e-5, atol=1e-5)
    same, _ = seen(AT_300, latents, cameras, alpha=alpha, state=result.before)
    torch.testing.assert_close(same, window.double(), rtol=1e-5, atol=1e-5)


def test_fresh_background_noise_is_new_at_every_step_and_view(cameras):
    method, latents = replace(AT_300, background="fresh"), normal(4, *SHAPE)
    first, result = seen(method, latents, cameras, alpha=0.0)
    second, _ = seen(method, latents, cameras, seed=1, state=result.after, alpha=0.0)
    draws = torch.stack([*first, *second]).flatten(1)
    correlations = torch.corrcoef(draws) - torch.eye(8)
    assert float(correlations.abs().max()) < 4.5 / draws.shape[1] ** 0.5
    assert abs(float(draws.var()) - 1) < 4 * (2 / draws.numel()) ** 0.5


def test_without_its_own_noise_it_is_sds_of_the_same_draws(cameras):
    """Sqrt_beta = 0: bit for bit SDS at the same t and from the same generator."""
    latents, t = normal(4, 3, 2, 2), flat(0.3)
    state = FSD().init_state(World(), torch.Generator().manual_seed(3))
    fsd = step(FSD(flat(7.5), t, sqrt_beta=0.0, background="same"), World(), latents, cameras, state=state)
    sds = step(SDS(flat(7.5), t, t, timesteps="linear-anneal"), World(), latents, cameras, state={})
    assert torch.equal(fsd.gradient, sds.gradient)


@pytest.mark.parametrize("sqrt_beta", [0.0, 0.5, 0.9, 1.0])
def test_the_share_of_its_own_noise_is_the_covariance_of_two_steps(sqrt_beta, cameras):
    """Covariance sqrt_beta^2 between two steps, variance 1 at each: x_t has its variance whatever the share is."""
    method, latents = replace(AT_300, sqrt_beta=sqrt_beta), normal(4, 4, 32, 32)
    first, result = seen(method, latents, cameras)
    second, _ = seen(method, latents, cameras, seed=1, state=result.after)
    error = 1 / first.numel() ** 0.5
    assert abs(float((first * second).mean()) - sqrt_beta**2) < 6 * error
    for eps in (first, second):
        assert abs(float(eps.var()) - 1) < 6 * error


def test_a_repeated_camera_shares_its_noise_over_the_falling_timesteps(cameras):
    method, latents = FSD(timestep=Ramp(0.98, 0.02), background="same"), normal(4, *SHAPE)
    world, draws = World(shape=SHAPE), []
    state = method.init_state(world, torch.Generator().manual_seed(0))
    for progress in (0.0, 0.5, 1.0):
        step(method, world, latents, cameras, progress, state=state)
        draws.append(noise_in(world, world.asked["positive"][-1], latents))
    torch.testing.assert_close(draws[0], draws[1])
    torch.testing.assert_close(draws[0], draws[2])


@pytest.mark.parametrize("noise", ["fixed", "world-map"])
def test_refreshed_noise_keeps_its_variance_and_forgets_by_the_square_root(noise, cameras):
    """Covariance (1 - g)^(k / 2) between a step and the k-th after it, of cameras and of the background."""
    rate, shape = 0.36, (4, 32, 32)
    method, latents = replace(AT_300, noise=noise, background="fixed", refresh=flat(rate)), normal(4, *shape)
    world = World(shape=shape)
    state = method.init_state(world, torch.Generator().manual_seed(0))
    states = [state]
    for seed in range(1, 4):
        state = step(method, world, latents, cameras, seed=seed, state=state).after
        states.append(state)
    for name, first in states[0].items():
        error = 1 / first.numel() ** 0.5
        for k, later in enumerate(states):
            assert abs(float((first * later[name]).mean()) - (1 - rate) ** (k / 2)) < 6 * error
            assert abs(float(later[name].var()) - 1) < 6 * error
    assert not torch.equal(states[1]["noise"], states[0]["noise"])


def test_a_step_sees_the_noise_that_it_leaves_and_that_of_no_refresh_stays(cameras):
    latents = normal(4, *SHAPE)
    eps, result = seen(replace(AT_300, refresh=flat(0.5)), latents, cameras)
    left = worldmap.crop(result.after["noise"], SHAPE, cameras).double()
    torch.testing.assert_close(eps, left, rtol=1e-5, atol=1e-5)
    _, kept = seen(AT_300, latents, cameras)
    assert all(torch.equal(kept.before[name], kept.after[name]) for name in kept.before)


def test_a_refreshed_sheet_stays_closed(cameras):
    _, result = seen(replace(AT_300, refresh=flat(0.5)), normal(4, *SHAPE), cameras)
    sheet = result.after["noise"]
    assert torch.equal(sheet[..., :16], sheet[..., -16:])
    assert not torch.equal(sheet, result.before["noise"])
