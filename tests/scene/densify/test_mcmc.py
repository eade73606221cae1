"""Equation 9 against its own sum in long decimals, gsplat's kernel and a ray; what is moved, added and shaken."""

from __future__ import annotations

from decimal import Decimal, localcontext
from math import comb

import pytest
import torch
from renderer import emulator
from scene.densify.common import GOOD, generator, in_step, make_render, make_scene, rows_of

from gsdistill.core.structs import SH_C0, Gaussians, RenderOptions
from gsdistill.renderer.base import render
from gsdistill.scene.densify.mcmc import MCMC, shared
from gsdistill.scene.viewpoints import orbit

NOW = {"start": 0.0, "stop": 1.0, "every": 0.1, "growth": 0.0}
OPACITIES = (0.006, 0.1, 0.5, 0.9, 0.99, 0.9999)


def refined(params, optimizers, good=GOOD, seed=0, **settings):
    """The report of a refinement in the first of ten steps."""
    densifier = MCMC(**NOW | settings).begin(10)
    densifier.observe(make_render(torch.zeros(1, len(params["means"]), 2)), good)
    return densifier.refine(params, optimizers, 1, generator(seed))


def equation_9(opacity: float, count: int) -> tuple[float, float]:
    """o' and s' / s by the double sum of the paper, in 100 digits."""
    with localcontext() as context:
        context.prec = 100
        o = Decimal(opacity)
        each = 1 - (1 - o) ** (1 / Decimal(count))
        terms = (
            comb(i - 1, k) * (-1) ** k / Decimal(k + 1).sqrt() * each ** (k + 1)
            for i in range(1, count + 1)
            for k in range(i)
        )
        return float(each), float(o / sum(terms))


@pytest.mark.parametrize("count", [1, 2, 3, 10, 51, 150])
def test_opacity_and_scale_are_those_of_equation_9(count):
    opacities = torch.tensor(OPACITIES, dtype=torch.float64)
    counts = torch.full((len(OPACITIES),), count)
    each, scales = shared(opacities.logit(), torch.zeros(len(OPACITIES), 3).double(), counts, 1e-9)
    truth = torch.tensor([equation_9(opacity, count) for opacity in OPACITIES]).double()
    torch.testing.assert_close(each.sigmoid(), truth[:, 0], rtol=1e-6, atol=0)
    torch.testing.assert_close(scales.exp(), truth[:, 1:].expand(-1, 3), rtol=1e-6, atol=0)
    single, wide = shared(opacities.float().logit(), torch.zeros(len(OPACITIES), 3), counts, 1e-9)
    torch.testing.assert_close(single.sigmoid(), truth[:, 0].float(), rtol=1e-4, atol=0)
    torch.testing.assert_close(wide.exp(), scales.exp().float(), rtol=1e-4, atol=0)


def test_none_becomes_dead_and_what_they_gather_stays():
    """Seven share one of 0.02: each keeps the floor of 0.005, and is the smaller for it."""
    each, scales = shared(torch.tensor([0.02]).logit(), torch.zeros(1, 3), torch.tensor([7]), 0.005)
    gathered = sum(comb(7, j) * (-1) ** (j - 1) * 0.005**j / j**0.5 for j in range(1, 8))
    assert float(each.sigmoid()) == pytest.approx(0.005, rel=1e-5)
    torch.testing.assert_close(scales.exp() * gathered, torch.full((1, 3), 0.02), rtol=1e-5, atol=0)


@pytest.mark.emulated
def test_opacity_and_scale_are_those_of_gsplats_kernel():
    random, n_max = generator(), 51
    opacities, scales = torch.rand(500, generator=random) * 0.98 + 0.01, torch.rand(500, 3, generator=random) + 0.01
    counts = torch.randint(1, 20, (500,), generator=random)  # beyond, the kernel's sum in float32 loses digits
    binomials = torch.tensor([[float(comb(n, k)) for k in range(n_max)] for n in range(n_max)])
    theirs = emulator.kernels().relocation(opacities, scales, counts.int(), binomials, n_max)
    each, logarithms = shared(opacities.logit(), scales.log(), counts, 1e-9)
    torch.testing.assert_close(each.sigmoid(), theirs[0], rtol=1e-4, atol=0)
    torch.testing.assert_close(logarithms.exp(), theirs[1], rtol=1e-3, atol=0)


@pytest.mark.parametrize(("opacity", "count"), [(0.3, 2), (0.7, 4), (0.95, 12)])
def test_as_many_in_one_place_look_like_the_one_before(opacity, count):
    """The row of pixels through the middle gathers as much alpha as before, and so does the pixel there."""

    def row(opacities: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        n = len(opacities)
        quats, sh = torch.eye(4)[:1].repeat(n, 1), torch.full((n, 1, 3), 0.5 / SH_C0)
        splat = Gaussians(torch.zeros(n, 3), quats, scales, opacities, sh, options=RenderOptions(eps2d=0.0))
        alphas = render(splat, orbit(1, 129), torch.zeros(1, 3), "reference").alphas
        return alphas[0, 64, :, 0]

    logits, scales = torch.tensor([opacity]).logit(), torch.full((1, 3), 0.15).log()
    before = row(logits, scales)
    each, smaller = shared(logits, scales, torch.tensor([count]), 1e-9)
    after = row(each.repeat(count), smaller.repeat(count, 1))
    assert after[64] == pytest.approx(float(before[64]), abs=1e-3)
    assert float(after.sum()) == pytest.approx(float(before.sum()), rel=1e-2)  # a renderer cuts tails
    assert (after - before).abs().max() < 0.15 * opacity


def test_the_dead_take_the_place_and_looks_of_live_ones():
    params, optimizers = make_scene(count=6)
    with torch.no_grad():
        params["opacities"].copy_(torch.tensor([0.5, 0.004, 0.5, 0.001, 0.5, 0.5]).logit())
    before = {name: value.detach().clone() for name, value in params.items()}
    report = refined(params, optimizers)
    assert (report.n_before, report.n_grown, report.n_pruned, report.n_after) == (6, 0, 0, 6)
    givers = []
    for row in (1, 3):
        (giver,) = (live for live in (0, 2, 4, 5) if torch.equal(params["means"][row], params["means"][live]))
        assert all(torch.equal(value[row], value[giver]) for value in params.values())
        givers.append(giver)
    for giver in set(givers):
        count = torch.tensor([1 + givers.count(giver)])
        rows = slice(giver, giver + 1)
        each, scales = shared(before["opacities"][rows], before["scales"][rows], count, 0.005)
        assert torch.equal(params["opacities"][rows], each) and torch.equal(params["scales"][rows], scales)
    kept = {0, 2, 4, 5} - set(givers)
    assert all(torch.equal(value[row], before[name][row]) for name, value in params.items() for row in kept)
    assert rows_of(optimizers, params) == [row + 1 if row in kept else 0 for row in range(6)]
    assert in_step(params, optimizers)


def test_live_ones_are_drawn_by_their_opacity():
    params, optimizers = make_scene(count=3003)
    with torch.no_grad():
        params["opacities"][:3], params["opacities"][3:] = torch.tensor([0.2, 0.3, 0.5]).logit(), -9.0
    means = params["means"].detach().clone()
    refined(params, optimizers)
    counts = [int((params["means"] == means[row]).all(dim=-1).sum()) - 1 for row in range(3)]
    assert sum(counts) == 3000
    for count, share in zip(counts, (0.2, 0.3, 0.5), strict=True):
        assert abs(count - 3000 * share) < 4 * (3000 * share * (1 - share)) ** 0.5


@pytest.mark.parametrize(("budget", "grown"), [(1000, 5), (102, 2), (100, 0)])
def test_it_adds_a_share_up_to_the_budget(budget, grown):
    params, optimizers = make_scene(count=100)
    before = params["means"].detach().clone()
    report = refined(params, optimizers, growth=0.05, budget=budget)
    assert report.n_grown == grown and len(params["means"]) == report.n_after == 100 + grown
    assert torch.equal(params["means"][:100], before) and in_step(params, optimizers)
    assert all((before == mean).all(dim=-1).any() for mean in params["means"][100:])


def test_where_none_lives_nothing_is_moved():
    params, optimizers = make_scene(opacity=0.001)
    before = params["means"]
    assert refined(params, optimizers, growth=1.0).n_after == 6 and params["means"] is before


def test_a_step_that_was_left_out_changes_nothing():
    params, optimizers = make_scene(opacity=0.02)
    with torch.no_grad():
        params["opacities"][2] = -9.0
    before = {name: value.detach().clone() for name, value in params.items()}
    assert refined(params, optimizers, ~GOOD, growth=1.0) is None
    densifier = MCMC(**NOW).begin(10)
    densifier.observe(make_render(torch.zeros(1, 6, 2)), ~GOOD)
    densifier.disturb(params, 0.01, generator())
    assert all(torch.equal(value, before[name]) for name, value in params.items())


def test_noise_is_the_covariance_times_a_logistic_of_opacity():
    """Sigma eta has the covariance Sigma^2: 200,000 draws of one rotated Gaussian."""
    count, rate, noise_lr, opacity = 200_000, 0.01, 500.0, 0.03
    quat, scales = torch.tensor([1.2, -0.4, 0.7, 0.3]), torch.tensor([0.3, 0.1, 0.05])
    params, _ = make_scene(count=1)
    given = {"means": torch.zeros(3), "quats": quat, "scales": scales.log(), "opacities": torch.tensor(opacity).logit()}
    params |= {key: torch.nn.Parameter(value.repeat(count, *[1] * value.dim())) for key, value in given.items()}
    densifier = MCMC(noise_lr=noise_lr).begin(10)
    densifier.observe(make_render(torch.zeros(1, 1, 2)), GOOD)
    densifier.disturb(params, rate, generator())
    moved = params["means"].detach().double()
    w, x, y, z = (quat / quat.norm()).double().tolist()
    skew = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    turn = torch.eye(3).double() + 2 * w * skew + 2 * skew @ skew
    sigma = turn @ torch.diag(scales.double().square()) @ turn.T
    strength = rate * noise_lr / (1 + torch.exp(torch.tensor(100 * (opacity - 0.005))).double())
    truth = strength**2 * sigma @ sigma
    assert moved.mean(dim=0).abs().max() < 5 * (truth.diagonal().max() / count) ** 0.5
    torch.testing.assert_close(moved.T @ moved / count, truth, rtol=0, atol=0.02 * float(truth.abs().max()))


def test_without_a_rate_there_is_no_noise_and_the_opaque_stay():
    params, _ = make_scene(opacity=0.5)
    before, random = params["means"].detach().clone(), generator()
    for noise_lr, rate in ((0.0, 1.0), (1e4, 0.0), (1e4, 0.01)):
        densifier = MCMC(noise_lr=noise_lr).begin(10)
        densifier.observe(make_render(torch.zeros(1, 6, 2)), GOOD)
        densifier.disturb(params, rate, random)
        torch.testing.assert_close(params["means"].detach(), before, rtol=0, atol=1e-9)
