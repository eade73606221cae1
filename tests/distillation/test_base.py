"""What all methods share."""

from __future__ import annotations

import pytest
import torch
from distillation.common import World, flat, moment_of

from gsdistill.distillation.base import surrogate_loss
from gsdistill.prior.schedule import NoiseSchedule
from gsdistill.scene.viewpoints import orbit


def test_surrogate_loss_has_the_gradient_it_is_given():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 2, 4, 4, generator=generator).requires_grad_()
    g = torch.randn(3, 2, 4, 4, generator=generator)
    surrogate_loss(latents, g).backward()
    torch.testing.assert_close(latents.grad, g / 3)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("sds", 0.36), ("uniform", 1.0), ("fantasia3d", 0.8 * 0.36), ("snr", 0.75), ("flow", 1.25), ("pf-ode", 0.75)],
)
def test_weights(kind, expected):
    schedule = NoiseSchedule(torch.tensor([0.8], dtype=torch.float64), torch.tensor([0.6], dtype=torch.float64))
    moment = moment_of(World(schedule=schedule), torch.zeros(1, 3, 2, 2, dtype=torch.float64), orbit(1, 8))
    assert float(moment.weight(kind, torch.tensor([0]))) == pytest.approx(expected)


def test_the_weights_of_the_ode_are_the_steps_of_the_noise_level():
    """They add up to s_t, so that a descent by one timestep a step goes all the way of DDIM."""
    world, t = World(), torch.arange(1000)
    moment = moment_of(world, torch.zeros(1000, 3, 2, 2, dtype=torch.float64), orbit(1000, 8))
    weights = moment.weight("pf-ode", t).flatten()
    torch.testing.assert_close(weights.cumsum(0), world.schedule.sigmas / world.schedule.alphas, rtol=1e-12, atol=0)
    assert bool((weights > 0).all())


def test_timesteps_cover_the_range_and_nothing_else():
    moment = moment_of(World(), torch.zeros(4000, 3, 2, 2), orbit(4000, 8))
    assert set(moment.draw_timesteps(flat(0.02), flat(0.03)).tolist()) == set(range(20, 31))
    assert int(moment.draw_timesteps(flat(0.999), flat(1.0)).max()) == 999
