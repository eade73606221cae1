"""What all methods share."""

from __future__ import annotations

import pytest
import torch

from gsdistill.distillation.base import draw_timesteps, surrogate_loss, weight
from gsdistill.prior.analytic import plain_schedule


def test_surrogate_loss_has_the_gradient_it_is_given():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 2, 4, 4, generator=generator).requires_grad_()
    g = torch.randn(3, 2, 4, 4, generator=generator)
    surrogate_loss(latents, g).backward()
    torch.testing.assert_close(latents.grad, g / 3)


@pytest.mark.parametrize(
    ("kind", "expected"), [("sds", 0.36), ("uniform", 1.0), ("fantasia3d", 0.8 * 0.36), ("snr", 0.75)]
)
def test_weights(kind, expected):
    schedule = type(plain_schedule())(
        torch.tensor([0.8], dtype=torch.float64), torch.tensor([0.6], dtype=torch.float64)
    )
    got = weight(kind, schedule, torch.tensor([0]), torch.zeros(1, 1, 1, 1, dtype=torch.float64))
    assert float(got) == pytest.approx(expected)


def test_timesteps_cover_the_range_and_nothing_else():
    t = draw_timesteps(0.02, 0.03, 4000, plain_schedule(), torch.Generator().manual_seed(0))
    assert set(t.tolist()) == set(range(20, 31))
    top = draw_timesteps(0.999, 1.0, 100, plain_schedule(), torch.Generator().manual_seed(0))
    assert int(top.max()) == 999
