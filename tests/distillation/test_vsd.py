"""VSD: its gradient, its student's training against torch's AdamW, and that the student learns the renders."""

from __future__ import annotations

import pytest
import torch
from distillation.common import World, flat, noise_in, normal, step

from gsdistill.distillation.vsd import VSD


def student_noise(world, weights, x, t):
    """eps_c(x) + B A (x, 1), written out, of the weights A and B."""
    flat_x = torch.cat([x.flatten(1), torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    a, b = (weight.to(x) for weight in weights)
    return world.exact("positive", x, t) + (flat_x @ a.T @ b.T).view_as(x)


def parts(packed):
    """A [4, 13] and B [12, 4] of what the state holds in one piece."""
    assert packed.shape == (100,)
    return packed[:52].view(4, 13), packed[52:].view(12, 4)


def carry(method, world, latents, cameras, count, state=None):
    """``count`` steps, the state handed on."""
    steps = []
    for seed in range(count):
        steps.append(step(method, world, latents, cameras, seed=seed, state=state))
        state = steps[-1].after
    return steps


def test_untrained_it_is_guidance_beyond_the_prompt(cameras):
    """eps_phi = eps_c, so g = w (omega - 1) h; the student is asked at the same x_t and t."""
    world, latents = World(), normal(4, 3, 2, 2)
    gradient = step(VSD(flat(7.5)), world, latents, cameras).gradient
    asked, own, _ = world.asked["positive"]
    assert torch.equal(asked.x, own.x) and torch.equal(asked.t, own.t)
    h = world.exact("positive", asked.x, asked.t) - world.exact("negative", asked.x, asked.t)
    torch.testing.assert_close(gradient, world.levels(asked.t)[1] ** 2 * 6.5 * h)


def test_trained_it_subtracts_the_students_noise(cameras):
    world, latents = World(), normal(4, 3, 2, 2)
    before = carry(VSD(lora_rate=0.1), world, latents, cameras, 5)[-1].after
    world = World()
    gradient = step(VSD(flat(3.0)), world, latents, cameras, state=before).gradient
    asked = world.asked["positive"][0]
    own = student_noise(world, parts(before["lora"]), asked.x, asked.t)
    expected = world.levels(asked.t)[1] ** 2 * (world.guided(asked.x, asked.t, 3.0) - own)
    torch.testing.assert_close(gradient, expected)
    assert float((own - world.exact("positive", asked.x, asked.t)).abs().max()) > 1e-2


def test_training_is_adamw_on_fresh_noise(cameras):
    """Five steps, each redone by torch.optim.AdamW on the loss |eps_phi(x_t') - eps'|^2 of the question recorded."""
    world, latents = World(), normal(4, 3, 2, 2)
    method = VSD(t_min=flat(0.3), t_max=flat(0.3), lora_rate=0.01)
    steps = carry(method, world, latents, cameras, 5)
    weights = [part.clone().requires_grad_() for part in parts(steps[0].before["lora"])]
    optimizer = torch.optim.AdamW(weights, lr=0.01, betas=(0.9, 0.999), weight_decay=0.01)
    for index, done in enumerate(steps):
        asked, own, trained = world.asked["positive"][3 * index : 3 * index + 3]
        assert asked.t.tolist() == own.t.tolist() == [300] * 4
        eps = noise_in(world, trained, latents)
        assert float((eps - noise_in(world, asked, latents)).abs().max()) > 0.1
        optimizer.zero_grad()
        loss = (student_noise(world, weights, trained.x, trained.t) - eps).square().mean()
        assert float(done.guidance.figures["lora_loss"]) == pytest.approx(loss.item(), rel=1e-6)
        loss.backward()
        optimizer.step()
        assert float(done.after["steps"]) == index + 1
        for key, tolerance in {"lora": 1e-7, "mean": 1e-8, "square": 1e-9}.items():
            for value, weight in zip(parts(done.after[key]), weights, strict=True):
                expected = {"mean": "exp_avg", "square": "exp_avg_sq"}
                by_torch = optimizer.state[weight][expected[key]] if key in expected else weight.detach()
                torch.testing.assert_close(value, by_torch, rtol=1e-5, atol=tolerance)
    assert float(parts(steps[-1].after["lora"])[1].abs().max()) > 1e-3


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
    t = torch.arange(0, 1000, 5)
    (alpha, sigma), eps = world.levels(t), normal(200, 3, 2, 2, seed=1)

    def loss(state):
        own = student_noise(world, parts(state["lora"]), alpha * 1.5 + sigma * eps, t)
        return float((own - eps).square().mean())

    steps = carry(VSD(lora_rate=0.01), world, latents, cameras, 100)
    first, middle, last = loss(steps[0].before), loss(steps[20].after), loss(steps[-1].after)
    assert first > middle > last
    assert last < 0.6 * first


def test_a_rate_of_zero_trains_nothing(cameras):
    result = step(VSD(lora_rate=0.0), World(), normal(4, 3, 2, 2), cameras)
    assert torch.equal(result.after["lora"], result.before["lora"])


def test_the_state_is_the_lora_and_its_moments():
    """Each in one piece: A [2, 13] and B [12, 2]."""
    state = VSD(rank=2).init_state(World(), torch.Generator().manual_seed(0))
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert shapes == {"lora": (50,), "mean": (50,), "square": (50,), "steps": ()}
    assert state["lora"][:26].all() and not state["lora"][26:].any()
    assert not state["mean"].any() and not state["square"].any()
