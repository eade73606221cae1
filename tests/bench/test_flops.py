"""Operations counted against what the mathematics says, and the ceiling against the clock it was read from."""

from __future__ import annotations

from collections import deque

import pytest
import torch
from tiny import stable_diffusion
from tiny.steps import load
from torch.nn.functional import scaled_dot_product_attention

from gsdistill.bench import flops
from gsdistill.bench.flops import count, count_step, matmul_ceiling
from gsdistill.prior.families.stable_diffusion import StableDiffusion
from gsdistill.training.distiller import Step

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return load(StableDiffusion, stable_diffusion.build(tmp_path_factory.mktemp("sd") / "sd"))


def test_a_product_is_two_operations_for_each_multiply_add():
    assert count(lambda: torch.ones(3, 5) @ torch.ones(5, 7)) == 2 * 3 * 5 * 7
    assert count(lambda: None) == 0


def test_a_convolution():
    layer = torch.nn.Conv2d(4, 6, 3, padding=1)
    assert count(lambda: layer(torch.ones(2, 4, 8, 8))) == 2 * 2 * 6 * 8 * 8 * 4 * 9


def test_a_compiled_product_is_counted_as_it_was_written():
    def hidden(graph, inputs):
        return lambda *given: (torch.zeros(3, 7),)

    compiled = torch.compile(lambda a, b: a @ b, backend=hidden)
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert float(compiled(a, b).sum()) == 0.0
    assert count(lambda: compiled(a, b)) == 2 * 3 * 5 * 7
    assert float(compiled(a, b).sum()) == 0.0


@pytest.mark.parametrize("gradient", [False, True])
def test_attention_is_counted_both_ways(gradient):
    """Scores and the sum over values, 2 b h l^2 d each; backward has four such products, and the scores once more."""
    b, h, length, d = 2, 3, 16, 8
    q, k, v = (torch.rand(b, h, length, d, requires_grad=gradient) for _ in range(3))
    one, made = 2 * b * h * length * length * d, []
    assert count(lambda: made.append(scaled_dot_product_attention(q, k, v))) == 2 * one
    if gradient:
        assert count(lambda: made[0].sum().backward()) == 5 * one


@pytest.mark.slow
def test_a_step_is_its_evaluations_and_the_encoder(prior):
    images, latents = torch.rand(3, 16, 16, 3), torch.rand(3, *prior.latent_shape)
    text = prior.encode_text("a", "").positive
    t = torch.tensor([500])

    def step():
        for row in latents.repeat(2, 1, 1, 1):
            prior.network(row[None], t, text, None)
        given = images.clone().requires_grad_()
        prior.encode(given).sum().backward()
        return Step(1, torch.zeros(()), {}, 6, 10, torch.tensor(True), images)

    found = count_step(prior, step)
    each = count(lambda: prior.network(latents[:1], t, text, None))
    assert each > 0
    assert (found.network, found.evaluations) == (6 * each, 6)
    assert found.encode == 3 * count(lambda: prior.encode(images[:1])) > 0
    assert found.encode_backward > found.encode / 2


class FixedClock:
    """Says that the products of each size took as long as it was told."""

    def __init__(self, device):
        self.laps = {}

    def __call__(self, phase):
        self.laps.setdefault(phase, deque()).append(FixedClock.times.pop(0))
        return torch.no_grad()

    def settle(self, wait=False):
        assert wait


def test_the_ceiling_is_the_best_rate_of_all_sizes(monkeypatch):
    monkeypatch.setattr(flops, "Clock", FixedClock)
    FixedClock.times = [4e-3, 2e-3, 3e-3, 9e-3, 5e-3, 0.1, 0.05, 0.2, 0.3, 0.1]  # of 512, then of 1,024
    found = matmul_ceiling(CPU, torch.bfloat16)
    assert (found.side, found.dtype) == (512, "bfloat16")
    assert found.flops_per_second == pytest.approx(2 * 512**3 / 2e-3)
    assert FixedClock.times == []


def test_it_stops_at_the_largest(monkeypatch):
    monkeypatch.setattr(flops, "Clock", FixedClock)
    monkeypatch.setattr(flops, "LARGEST", 1024)
    FixedClock.times = [1e-3] * 10
    assert matmul_ceiling(CPU, torch.float32).side == 1024
