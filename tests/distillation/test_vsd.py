"""VSD: its gradient, what its student is told, the student's training against torch's AdamW, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch
from distillation.common import World, flat, moment_of, noise_in, normal, step, told

from gsdistill.core.errors import ConfigError
from gsdistill.distillation.base import Moment
from gsdistill.distillation.vsd import VSD
from gsdistill.prior.matrices import camera_matrices
from gsdistill.scene.viewpoints import orbit
from gsdistill.testing import World as Exact

FIRST = 4 * 29  # numbers in A


def student_noise(world, weights, x, t, numbers):
    """eps_c(x) + B A (x, 1, camera), written out, of the weights A and B."""
    seen = torch.cat([x.flatten(1), torch.ones(len(x), 1, dtype=x.dtype), numbers.to(x).expand(len(x), 16)], dim=1)
    a, b = (weight.to(x) for weight in weights)
    return world.exact("positive", x, t) + (seen @ a.T @ b.T).view_as(x)


def parts(packed):
    """A [4, 29] and B [12, 4] of what the state holds in one piece."""
    assert packed.shape == (FIRST + 48,)
    return packed[:FIRST].view(4, 29), packed[FIRST:].view(12, 4)


def carry(method, world, latents, cameras, count, state=None):
    """``count`` steps, the state handed on."""
    steps = []
    for seed in range(count):
        steps.append(step(method, world, latents, cameras, seed=seed, state=state))
        state = steps[-1].after
    return steps


def trained(cameras):
    """A state whose student is far from the prior."""
    return carry(VSD(lora_rate=0.1, camera_dropout=0.0), World(), normal(4, 3, 2, 2), cameras, 5)[-1].after


def test_the_settings_are_threestudios():
    method = VSD()
    assert (method.t_max(0.1999), method.t_max(0.2)) == (0.98, 0.5)
    assert (method.betas, method.epsilon, method.decay, method.warm_up) == ((0.9, 0.99), 1e-15, 0.01, 0)
    assert (method.guidance_scale_lora, method.camera_dropout, method.rank) == (flat(1.0), 0.1, 4)


def test_untrained_it_is_guidance_beyond_the_prompt(cameras):
    """eps_phi = eps_c, so g = w (omega - 1) h; the student is asked at the same x_t and t."""
    world, latents = World(), normal(4, 3, 2, 2)
    gradient = step(VSD(flat(7.5)), world, latents, cameras).gradient
    asked, own, _ = world.asked["positive"]
    assert torch.equal(asked.x, own.x) and torch.equal(asked.t, own.t)
    h = world.exact("positive", asked.x, asked.t) - world.exact("negative", asked.x, asked.t)
    torch.testing.assert_close(gradient, world.levels(asked.t)[1] ** 2 * 6.5 * h)


def test_the_student_hears_the_prompt_without_its_view(cameras):
    """Both when it is asked and when it is trained, also where Perp-Neg mixes the prompts of two views."""
    world, weights = World(), torch.full((4, 2), -0.5)
    condition = told(cameras, weights, plain="perp1")
    gradient = step(VSD(flat(3.0)), world, normal(4, 3, 2, 2), cameras, condition=condition).gradient
    assert [len(world.asked[name]) for name in ("positive", "negative", "perp0", "perp1")] == [1, 1, 1, 3]
    asked = world.asked["positive"][0]
    assert torch.equal(world.asked["perp1"][1].x, asked.x)
    guided = world.noise(asked.x, asked.t, condition).guided(3.0)
    expected = world.levels(asked.t)[1] ** 2 * (guided - world.exact("perp1", asked.x, asked.t))
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0, 0.0])
def test_trained_it_subtracts_the_students_noise_guided_over_the_camera(scale, cameras):
    world, before = World(), trained(cameras)
    gradient = step(VSD(flat(3.0), flat(scale)), world, normal(4, 3, 2, 2), cameras, state=before).gradient
    asked, numbers = world.asked["positive"][0], camera_matrices(cameras)
    with_camera, without = (
        student_noise(world, parts(before["lora"]), asked.x, asked.t, seen) for seen in (numbers, 0 * numbers)
    )
    assert float((with_camera - without).abs().max()) > 1e-2
    own = without + scale * (with_camera - without)
    torch.testing.assert_close(gradient, world.levels(asked.t)[1] ** 2 * (world.guided(asked.x, asked.t, 3.0) - own))
    assert len(world.asked["positive"]) == (3 if scale == 1.0 else 4)


def test_a_student_that_is_not_told_the_camera_is_the_same_from_everywhere(cameras):
    state = carry(VSD(lora_rate=0.1, camera=False), World(), normal(4, 3, 2, 2), cameras, 5)[-1].after
    assert state["lora"].shape == (100,)
    here, there = (
        step(VSD(camera=False), World(), normal(4, 3, 2, 2), seen, state=state).gradient
        for seen in (cameras, orbit(4, 8, elevation=50.0))
    )
    assert torch.equal(here, there)
    with pytest.raises(ConfigError, match="guidance_scale_lora is over the camera"):
        VSD(camera=False, guidance_scale_lora=flat(0.5)).init_state(World(), torch.Generator())


@pytest.mark.parametrize("settings", [{}, {"betas": (0.9, 0.999), "epsilon": 1e-8, "warm_up": 3}])
def test_training_is_adamw_on_fresh_noise(settings, cameras):
    """Six steps, each redone by torch.optim.AdamW on the loss |eps_phi(x_t') - eps'|^2 of the question recorded."""
    world, latents, numbers = World(), normal(4, 3, 2, 2), camera_matrices(cameras)
    method = VSD(t_min=flat(0.3), t_max=flat(0.3), lora_rate=0.01, camera_dropout=0.0, **settings)
    steps = carry(method, world, latents, cameras, 6)
    weights = [part.clone().requires_grad_() for part in parts(steps[0].before["lora"])]
    optimizer = torch.optim.AdamW(weights, lr=0.01, betas=method.betas, eps=method.epsilon, weight_decay=0.01)
    share = (lambda done: min(1.0, done / 4)) if method.warm_up else (lambda done: 1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    for index, done in enumerate(steps):
        asked, own, learned = world.asked["positive"][3 * index : 3 * index + 3]
        assert asked.t.tolist() == own.t.tolist() == [300] * 4
        eps = noise_in(world, learned, latents)
        assert float((eps - noise_in(world, asked, latents)).abs().max()) > 0.1
        optimizer.zero_grad()
        loss = (student_noise(world, weights, learned.x, learned.t, numbers) - eps).square().mean()
        assert float(done.guidance.figures["lora_loss"]) == pytest.approx(loss.item(), rel=1e-6)
        loss.backward()
        optimizer.step()
        schedule.step()
        assert float(done.after["steps"]) == index + 1
        for key, tolerance in {"lora": 2e-6, "mean": 1e-7, "square": 1e-8}.items():
            for value, weight in zip(parts(done.after[key]), weights, strict=True):
                expected = {"mean": "exp_avg", "square": "exp_avg_sq"}
                by_torch = optimizer.state[weight][expected[key]] if key in expected else weight.detach()
                torch.testing.assert_close(value, by_torch, rtol=1e-4, atol=tolerance)
    assert float(parts(steps[-1].after["lora"])[1].abs().max()) > 1e-3


def test_no_camera_is_told_in_some_of_the_trainings(cameras):
    """To none of the views: then no gradient reaches the columns of A that take the camera."""
    state, dropped = trained(cameras), 0
    method = VSD(camera_dropout=0.3, betas=(0.0, 0.0))  # the mean moment is the gradient itself
    for seed in range(100):
        after = step(method, World(), normal(4, 3, 2, 2), cameras, seed=seed, state=state).after
        dropped += not parts(after["mean"])[0][:, 13:].any()
    assert abs(dropped - 30) < 4 * math.sqrt(100 * 0.3 * 0.7)


class AtOneTime(Moment):
    """Every t is 400."""

    def draw_timesteps(self, *ranges, **how):
        return self.same_timestep(400)


@pytest.mark.parametrize("kind", ["v_prediction", "flow_prediction", "sample"])
def test_the_student_is_trained_on_what_its_network_predicts(kind, cameras):
    """Its error in v is that in the noise divided by alpha, and likewise for the others."""
    state, found = trained(cameras), {}
    for name in ("epsilon", kind):
        usual = moment_of(Exact(kind=name), normal(4, 3, 2, 2), cameras)
        moment = AtOneTime(usual.prior, usual.views, usual.condition, 0.0, usual.generator)
        guidance, after = VSD(camera_dropout=0.0, betas=(0.0, 0.0)).gradient(moment, state)
        found[name] = float(guidance.figures["lora_loss"]), after["mean"]
    ratio = float(usual.schedule.sigmas[400] / usual.schedule.alphas[400])
    slope = {"v_prediction": (1 + ratio**2) ** 0.5, "flow_prediction": 1 + ratio, "sample": ratio}[kind]
    assert found[kind][0] == pytest.approx(found["epsilon"][0] * slope**2, rel=1e-6)
    torch.testing.assert_close(found[kind][1], found["epsilon"][1] * slope**2, rtol=1e-4, atol=1e-7)


def test_one_time_for_all_views_if_asked(cameras):
    for shared in (False, True):
        world = World()
        carry(VSD(shared_timestep=shared), world, normal(4, 3, 2, 2), cameras, 5)
        asked = world.asked["negative"]
        assert all((len(set(one.t.tolist())) == 1) == shared for one in asked)
        assert len({int(one.t[0]) for one in asked}) == 5
        assert any(len(set(one.t.tolist())) > 1 for one in world.asked["positive"][2::3])


def test_the_student_trains_at_all_noise_levels(cameras):
    """Whatever the range of t is."""
    world = World()
    carry(VSD(t_min=flat(0.3), t_max=flat(0.3)), world, normal(4, 3, 2, 2), cameras, 100)
    t = torch.cat([asked.t for asked in world.asked["positive"][2::3]])
    assert int(t.min()) < 20 and int(t.max()) > 980
    assert abs(float(t.double().mean()) - 499.5) < 4 * 1000 / (12 * len(t)) ** 0.5


def test_the_student_learns_the_renders(cameras):
    """On fixed views: its loss over all noise levels, on draws that it was not trained on."""
    world, latents = World(), torch.full((4, 3, 2, 2), 1.5, dtype=torch.float64)
    t, numbers = torch.arange(0, 1000, 5), camera_matrices(cameras)[:1]
    (alpha, sigma), eps = world.levels(t), normal(200, 3, 2, 2, seed=1)

    def loss(state):
        own = student_noise(world, parts(state["lora"]), alpha * 1.5 + sigma * eps, t, numbers)
        return float((own - eps).square().mean())

    steps = carry(VSD(lora_rate=0.01), world, latents, cameras, 100)
    first, middle, last = loss(steps[0].before), loss(steps[20].after), loss(steps[-1].after)
    assert first > middle > last
    assert last < 0.6 * first


def test_a_rate_of_zero_trains_nothing(cameras):
    result = step(VSD(lora_rate=0.0), World(), normal(4, 3, 2, 2), cameras)
    assert torch.equal(result.after["lora"], result.before["lora"])


def test_the_state_is_the_lora_and_its_moments():
    """Each in one piece: A [2, 29], of deviation 1 / 2, and B [12, 2]."""
    state = VSD(rank=2).init_state(World(), torch.Generator().manual_seed(0))
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert shapes == {"lora": (82,), "mean": (82,), "square": (82,), "steps": ()}
    assert 0.35 < float(state["lora"][:58].std()) < 0.65 and not state["lora"][58:].any()
    assert not state["mean"].any() and not state["square"].any()
