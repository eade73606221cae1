"""CFD: its formula, its schedules, whose noise a pixel has, and how the noise is refreshed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from distillation.common import World, flat, moment_of, noise_in, normal, step

from gsdistill.core.errors import ConfigError
from gsdistill.distillation.base import Surface
from gsdistill.distillation.cfd import CFD
from gsdistill.distillation.surface_noise import ball, sample
from gsdistill.settings.config import from_dict, to_dict

SHAPE = (3, 8, 8)
STILL = CFD(flat(7.5), ((0.0, 0.3),), texels=6, precision="float32", refresh=flat(0.0))


def half_seen(cameras) -> Surface:
    """A ball of which the left half of the picture shows nothing."""
    whole = ball(cameras, SHAPE[1:])
    return replace(whole, alphas=whole.alphas * (torch.arange(9) >= 4))


def seen(method, latents, cameras, seed=0, state=None):
    """The noise of one step, its answer and the state after, with half a surface."""
    world = World(shape=SHAPE)
    moment = replace(moment_of(world, latents, cameras, seed=seed), surface=half_seen(cameras))
    if state is None:
        state = method.init_state(world, moment.generator)
    guidance, after = method.clipped(moment, state)
    return noise_in(world, world.asked["positive"][0], latents), guidance, state, after


def test_gradient_in_closed_form(cameras):
    """Weight s_t; the noise in x_t is the one that is subtracted."""
    world, latents = World(shape=SHAPE), normal(4, *SHAPE)
    result = step(STILL, world, latents, cameras)
    asked = world.asked["positive"][0]
    eps = sample(result.before["textures"], ball(cameras, SHAPE[1:]))[0].double()
    alpha, sigma = world.levels(300)
    torch.testing.assert_close(noise_in(world, asked, latents), eps, rtol=1e-5, atol=1e-5)
    expected = sigma / alpha * (world.guided(asked.x, 300, 7.5) - eps)
    torch.testing.assert_close(result.gradient, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("iteration", "t"), [(0, 980), (1250, 836), (2500, 692), (7500, 548), (12500, 404), (18750, 308), (25000, 212)]
)
def test_t_falls_by_the_published_lines(iteration, t, cameras):
    """0.98 - 0.96 share, with shares 0, 0.3, 0.6, 0.8 at the steps 0, 2,500, 12,500, 25,000."""
    world = World(shape=SHAPE)
    step(replace(STILL, timesteps=CFD().timesteps), world, normal(4, *SHAPE), cameras, iteration / 25000)
    assert world.asked["positive"][0].t.tolist() == [t] * 4


@pytest.mark.parametrize(
    ("iteration", "rate"), [(0, 0.01), (5000, 0.01), (7500, 0.00505), (10000, 1e-4), (25000, 1e-4)]
)
def test_the_published_refresh(iteration, rate):
    assert CFD().refresh(iteration / 25000) == pytest.approx(rate)


def test_pairs_of_progress_and_t_are_settings():
    told = from_dict(CFD, {"timesteps": [[0, 0.9], [0.5, 0.2]]})
    assert told.timesteps == ((0.0, 0.9), (0.5, 0.2))
    assert from_dict(CFD, to_dict(told)) == told
    for wrong in ([], [[0.5, 0.9], [0.5, 0.2]], [[0.0, 1.9]]):
        with pytest.raises(ConfigError, match=r"timesteps"):
            from_dict(CFD, {"timesteps": wrong})


def test_a_pixel_without_surface_has_the_noise_of_the_background(cameras):
    latents = normal(4, *SHAPE)
    eps, guidance, state, after = seen(STILL, latents, cameras)
    on_surface, count = sample(state["textures"], half_seen(cameras))
    assert bool((count[..., :4] == 0).all())
    assert float((count[..., 4:] > 0).float().mean()) > 0.9
    expected = torch.where(count > 0, on_surface, state["background"]).double()
    torch.testing.assert_close(eps, expected, rtol=1e-5, atol=1e-5)
    assert float(guidance.figures["covered"]) == pytest.approx(float((count > 0).double().mean()))
    assert after is state
    later = seen(STILL, latents + 1, cameras, seed=9, state=state)[0]
    torch.testing.assert_close(later, eps)


def test_a_fresh_background_is_new_for_every_view_and_step(cameras):
    method, latents = replace(STILL, background="fresh"), normal(4, *SHAPE)
    first, _, state, _ = seen(method, latents, cameras)
    second = seen(method, latents, cameras, seed=1, state=state)[0]
    torch.testing.assert_close(first[..., 5:], second[..., 5:])
    draws = torch.stack([*first[..., :4], *second[..., :4]]).flatten(1)
    assert float((torch.corrcoef(draws) - torch.eye(8)).abs().max()) < 4.5 / draws.shape[1] ** 0.5


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_refreshed_noise_keeps_its_variance_and_forgets_by_the_square_root(precision, cameras):
    """Covariance (1 - g)^(k / 2) between a step and the k-th after it; the step sees the noise that it leaves."""
    method, latents = replace(STILL, refresh=flat(0.36), precision=precision), normal(4, *SHAPE)
    eps, _, state, after = seen(method, latents, cameras)
    expected = sample(after["textures"], half_seen(cameras))[0].double()
    torch.testing.assert_close(eps[..., 5:], expected[..., 5:], rtol=1e-5, atol=1e-5)
    states = [state, after]
    for seed in (1, 2):
        states.append(seen(method, latents, cameras, seed=seed, state=states[-1])[3])
    for name, first in state.items():
        error = 1 / first.numel() ** 0.5
        for k, later in enumerate(states):
            assert abs(float((first.double() * later[name].double()).mean()) - 0.8**k) < 6 * error
            assert abs(float(later[name].double().var()) - 1) < 6 * error


def test_a_moment_without_a_surface_is_refused(cameras):
    world = World(shape=SHAPE)
    moment = replace(moment_of(world, normal(4, *SHAPE), cameras), surface=None)
    with pytest.raises(ConfigError, match="needs the surface"):
        STILL.gradient(moment, STILL.init_state(world, moment.generator))
