"""The rules by which parameters follow gradients: by hand, through bad steps, growth, checkpoints and stages."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice

import pytest
import torch
from representation.test_particles import world
from torch.nn import Parameter

from gsdistill.core.errors import BadFile, ConfigError
from gsdistill.distillation.sds import SDS
from gsdistill.representation.gaussians import GaussianScene, SceneSettings
from gsdistill.representation.optimizer import MOMENTS, Optimizer, OptimSettings
from gsdistill.scene.densify.gradient import Gradient
from gsdistill.scene.densify.mcmc import MCMC
from gsdistill.scene.init.ball import Ball
from gsdistill.settings.config import from_dict
from gsdistill.training import checkpoint
from gsdistill.training.distiller import Distiller, Stage
from gsdistill.training.views import ViewSettings

ADAN = OptimSettings(rule="adan", betas=(0.98, 0.92, 0.99), eps=1e-8)
RULES = [OptimSettings(), OptimSettings(rule="adamw", weight_decay=0.1), replace(ADAN, weight_decay=0.1)]
GOOD, BAD = torch.tensor(0.0), torch.tensor(1.0)
HERE, VIEWS = torch.device("cpu"), ViewSettings(2, 8)
every_rule = pytest.mark.parametrize("settings", RULES, ids=lambda settings: settings.rule)


def gradients(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 4, 3, generator=torch.Generator().manual_seed(seed))


def follow(optimizer: Optimizer, value: Parameter, gradient: torch.Tensor, rate: float, bad: torch.Tensor = GOOD):
    value.grad = gradient.clone()
    optimizer.step(rate, bad)
    assert value.grad is None


def adan_by_hand(start: list[float], slopes: list[list[float]], rates: list[float], settings: OptimSettings):
    """Algorithm 1 of the paper with its bias corrections, one number after the other, in Python's floats."""
    b1, b2, b3 = settings.betas
    after = []
    for place, x in enumerate(start):
        m = d = v = 0.0
        before = slopes[0][place]
        for n, (row, rate) in enumerate(zip(slopes, rates, strict=True), 1):
            g = row[place]
            m = b1 * m + (1 - b1) * g
            d = b2 * d + (1 - b2) * (g - before)
            v = b3 * v + (1 - b3) * (g + b2 * (g - before)) ** 2
            step = rate / (math.sqrt(v / (1 - b3**n)) + settings.eps)
            x = (x - step * (m / (1 - b1**n) + b2 * d / (1 - b2**n))) / (1 + rate * settings.weight_decay)
            before = g
        after.append(x)
    return after


@pytest.mark.parametrize("betas", [(0.98, 0.92, 0.99), (0.0, 0.5, 0.999)])
@pytest.mark.parametrize(("eps", "decay"), [(1e-8, 0.0), (0.1, 0.3)])
def test_adan_is_its_paper(betas, eps, decay):
    settings = OptimSettings(rule="adan", betas=betas, eps=eps, weight_decay=decay)
    slopes, start = gradients(9).flatten(1), torch.linspace(-1, 1, 12)
    rates = [0.05 / n for n in range(1, 10)]
    value = Parameter(start.clone())
    optimizer = Optimizer(value, settings)
    for slope, rate in zip(slopes, rates, strict=True):
        follow(optimizer, value, slope, rate)
    wanted = adan_by_hand(start.tolist(), slopes.tolist(), rates, settings)
    torch.testing.assert_close(value.data, torch.tensor(wanted), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_adam_and_adamw_are_those_of_torch_to_the_last_bit(name):
    start = torch.linspace(-1, 1, 12).view(4, 3)
    value, other = Parameter(start.clone()), Parameter(start.clone())
    settings = OptimSettings(rule=name.lower(), betas=(0.0, 0.99), eps=1e-8, weight_decay=0.2)
    optimizer = Optimizer(value, settings)
    torchs = getattr(torch.optim, name)([other], lr=0.05, betas=(0.0, 0.99), eps=1e-8, weight_decay=0.2, fused=True)
    for slope in gradients(9):
        follow(optimizer, value, slope, 0.05)
        other.grad = slope.clone()
        torchs.step()
    assert torch.equal(value, other) and not torch.equal(value, start)


@every_rule
def test_a_bad_step_leaves_no_trace(settings):
    """Wherever it comes, the first step included; the gradient before is one of the things that stay."""
    start = torch.linspace(-1, 1, 12).view(4, 3)
    value, other = Parameter(start.clone()), Parameter(start.clone())
    one, two = Optimizer(value, settings), Optimizer(other, settings)
    for number, slope in enumerate(gradients(6)):
        if number in (0, 3, 4):
            follow(one, value, torch.full_like(slope, math.nan), 0.05, BAD)
        follow(one, value, slope, 0.05)
        follow(two, other, slope, 0.05)
    assert torch.equal(value, other) and value.isfinite().all()
    for name, kept in two.state[other].items():
        assert torch.equal(one.state[value][name], kept)


def scene(optim: OptimSettings, densify=None, count: int = 20) -> GaussianScene:
    initial = Ball(count=count).create("", torch.Generator().manual_seed(3))
    return GaussianScene(initial, SceneSettings(optim=optim, densify=densify or Gradient()), 8, HERE)


@pytest.mark.parametrize("most", [0.5, 1e9])
def test_the_norm_of_all_gradients_together_is_clipped(most):
    clipped, free = scene(OptimSettings(max_grad_norm=most)), scene(OptimSettings())
    random = torch.Generator().manual_seed(1)
    slopes = {key: torch.randn(value.shape, generator=random) for key, value in clipped.params.items()}
    norm = math.sqrt(sum(float(slope.square().sum()) for slope in slopes.values()))
    factor = min(1.0, most / norm)
    for key, slope in slopes.items():
        clipped.params[key].grad, free.params[key].grad = slope.clone(), factor * slope
    assert clipped.update(0.0) and free.update(0.0)
    for key, optimizer in clipped.optimizers.items():
        seen, wanted = (one.optimizers[key].state[one.params[key]]["exp_avg"] for one in (clipped, free))
        torch.testing.assert_close(seen, wanted, rtol=1e-5, atol=1e-9)
        assert optimizer.state[clipped.params[key]]["step"] == 1


def test_a_gradient_that_is_not_finite_is_skipped_although_it_is_clipped():
    one = scene(replace(ADAN, max_grad_norm=1.0))
    before = {key: value.detach().clone() for key, value in one.params.items()}
    for value in one.params.values():
        value.grad = torch.ones_like(value)
    one.params["sh"].grad[0, 0, 0] = torch.inf
    assert not one.update(0.0)
    assert all(torch.equal(before[key], value) for key, value in one.params.items())
    assert not any(kept.any() for key in before for kept in one.optimizers[key].state[one.params[key]].values())


def run(settings: SceneSettings, steps: int = 8, then=()) -> Distiller:
    initial = Ball(count=20).create("", torch.Generator().manual_seed(3))
    splat, generator = GaussianScene(initial, settings, steps, HERE), torch.Generator().manual_seed(3)
    prior = world()
    return Distiller(splat, prior, SDS(), prior.encode_text("", ""), VIEWS, steps, generator, then=then)


GROWING = Gradient(enabled=True, start=0.0, stop=1.0, every=0.25, grow_grad2d=1e-4, budget=40, reset_every=0.5)
MOVING = MCMC(start=0.0, stop=1.0, every=0.25, growth=0.4, budget=40, prune_opacity=0.2)


@every_rule
@pytest.mark.parametrize("densify", [GROWING, MOVING], ids=["gradient", "mcmc"])
def test_all_that_a_rule_remembers_grows_with_the_gaussians_and_resumes(settings, densify, tmp_path):
    whole, broken, mended = (run(SceneSettings(optim=settings, densify=densify)) for _ in range(3))
    list(whole), list(islice(broken, 5))
    assert whole.representation.grown > 0
    for key, optimizer in whole.representation.optimizers.items():
        (kept,) = optimizer.state.values()
        assert kept.keys() == {"step", *MOMENTS[settings.rule]}
        assert all(kept[name].shape == whole.representation.params[key].shape for name in MOMENTS[settings.rule])
    checkpoint.restore(mended, checkpoint.read(checkpoint.save(broken, tmp_path, {})))
    list(mended)
    found, wanted = mended.representation.state(), whole.representation.state()
    assert found.keys() == wanted.keys()
    assert not [name for name in wanted if not torch.equal(found[name], wanted[name])]


def test_a_checkpoint_of_another_rule_does_not_fit(tmp_path):
    first = run(SceneSettings())
    list(islice(first, 2))
    saved = checkpoint.read(checkpoint.save(first, tmp_path, {}))
    with pytest.raises(BadFile, match=r"does not fit a run with these settings: adam\.means\.exp_avg_diff"):
        checkpoint.restore(run(SceneSettings(optim=ADAN)), saved)


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_stage_of_another_rule_begins_its_moments_anew(stop, tmp_path):
    """And one with other numbers of the same rule goes on; a stop anywhere changes nothing."""

    def begin() -> Distiller:
        rules = OptimSettings(rule="adamw", weight_decay=0.1), ADAN, replace(ADAN, betas=(0.9, 0.9, 0.9))
        then = [Stage(SDS(), VIEWS, 2, SceneSettings(optim=rule)) for rule in rules]
        return run(SceneSettings(), 3, then)

    whole, broken, mended = begin(), begin(), begin()
    counts = []
    for _ in whole:
        state = whole.representation.optimizers["means"].state.values()
        counts.append([int(kept["step"]) for kept in state])
    assert counts == [[1], [2], [], [1], [], [1], [2], [3], [4]]  # a stage ends with its last step
    list(islice(broken, stop))
    checkpoint.restore(mended, checkpoint.read(checkpoint.save(broken, tmp_path, {})))
    list(mended)
    for name, value in whole.representation.state().items():
        assert torch.equal(mended.representation.state()[name], value), name


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"rule": "adan"}, r"optim.betas = \[0.9, 0.99\]: adan takes 3 values, such as \[0.98, 0.92, 0.99\]"),
        ({"betas": [0.9, 0.9, 0.9]}, r"optim.betas = \[0.9, 0.9, 0.9\]: adam takes 2 values"),
        ({"rule": "sgd"}, "optim.rule = 'sgd' is not a choice.* Allowed: adam, adamw, adan"),
        ({"betas": [0.9, 1.0]}, r"optim.betas\[1\] = 1.0 is out of range"),
        ({"eps": -1}, "optim.eps = -1 is out of range; it must be greater than 0"),
        ({"eps": 0}, "optim.eps = 0 is out of range; it must be greater than 0"),
        ({"max_grad_norm": -1}, "optim.max_grad_norm = -1 is out of range"),
        ({"weight_decay": -1}, "optim.weight_decay = -1 is out of range"),
    ],
)
def test_what_is_not_allowed_is_named(given, told):
    with pytest.raises(ConfigError, match=told):
        from_dict(OptimSettings, given, "optim")
