"""Distilling on a closed-form prior: it learns, resumes bit for bit, depends on the seed alone, survives bad steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
import torch
from gsplat.strategy import DefaultStrategy
from renderer.emulator import EMULATED
from torch.nn import Parameter

from gsdistill.core.structs import Gaussians, Views
from gsdistill.distillation.base import Distillation, Moment
from gsdistill.distillation.cds import CDS
from gsdistill.distillation.sds import SDS
from gsdistill.distillation.surface_noise import corners
from gsdistill.distillation.vsd import VSD
from gsdistill.prior.analytic import AnalyticPrior, Mixture
from gsdistill.prior.prompts import PromptSettings, encode_with_endings
from gsdistill.renderer.base import render
from gsdistill.representation.gaussians import GaussianScene, SceneSettings
from gsdistill.representation.optimizer import OptimSettings
from gsdistill.representation.regularizers import RegularizerSettings
from gsdistill.scene.densify.gradient import Gradient
from gsdistill.scene.init.ball import Ball
from gsdistill.settings.ramp import Ramp
from gsdistill.settings.registry import load, names
from gsdistill.training import checkpoint
from gsdistill.training.backgrounds.black import Black
from gsdistill.training.distiller import Distiller, Diverged
from gsdistill.training.views import ViewSettings

SIZE = 16
PHASES = ["render", "encode", "network", "encode backward", "render backward", "optimise", "densify"]
VIEWS = ViewSettings(2, SIZE)
GROWING = Gradient(enabled=True, start=0.0, stop=1.0, every=0.25, grow_grad2d=1e-4, budget=60)
CHOOSING = replace(GROWING, grow_grad2d=2.5, budget=1000)
FAINT = -5.0  # logit of an opacity that is pruned
FADING = 3.0  # weight of the opacity penalty, where there is one

PICTURE = torch.tensor([-0.8, -0.8, 0.2], dtype=torch.float64)[:, None, None].expand(3, SIZE, SIZE).reshape(1, -1)
BLUE = Mixture(torch.ones(1), PICTURE, torch.tensor([0.2]))


@pytest.fixture(autouse=True, params=["cpu", EMULATED])
def renderer(request: pytest.FixtureRequest) -> str:
    """Every test by our renderer, and by gsplat's kernels."""
    return request.param


@pytest.fixture(scope="module")
def prior() -> AnalyticPrior:
    """A world of one picture: everything is dark blue."""
    return AnalyticPrior(BLUE, BLUE, (3, SIZE, SIZE))


@pytest.fixture(scope="module")
def telling() -> AnalyticPrior:
    """A world of any picture, of which the prompt picks dark blue: its guidance is not zero."""
    anything = Mixture(torch.ones(1), torch.zeros(1, 3 * SIZE * SIZE), torch.ones(1))
    return AnalyticPrior(BLUE, anything, (3, SIZE, SIZE))


def begin(
    prior: AnalyticPrior,
    method: Distillation,
    iterations: int = 12,
    densify: Gradient = GROWING,
    views: ViewSettings = VIEWS,
    fading: float = 0.0,
) -> Distiller:
    generator = torch.Generator().manual_seed(3)
    initial = Ball(count=40).create("", generator)
    settings = SceneSettings(densify=densify, regularizers=RegularizerSettings(Ramp(fading, fading)))
    splat = GaussianScene(initial, settings, iterations, torch.device("cpu"))
    text = encode_with_endings(prior.encode_text, "", "", PromptSettings(), method.endings())
    return Distiller(splat, prior, method, text, views, iterations, generator)


def carry(run: Distiller, count: int) -> list:
    return list(islice(run, count))


def mixed(count: int, generator: torch.Generator) -> torch.Tensor:
    """The backgrounds that a run has unless others are asked for."""
    colours, chance = torch.rand(count, 3, generator=generator), torch.rand(count, 1, generator=generator)
    return torch.where(chance < 0.5, torch.full_like(colours, 0.5), colours)


def state(run: Distiller) -> list[torch.Tensor]:
    return [value.detach().clone() for value in run.representation.params.values()]


def assert_equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> None:
    for left, right in zip(a, b, strict=True):
        assert torch.equal(left, right)


def test_learns_the_only_picture_of_its_world(prior):
    method = SDS(guidance_scale=Ramp(1.0, 1.0), weighting="uniform")
    run = begin(prior, method, 80, Gradient(), replace(VIEWS, background=Black()))
    records = carry(run, 80)

    def blue(images):
        return float((images[..., 2] - images[..., 0]).mean())

    assert blue(records[-1].images) > blue(records[0].images) + 0.1
    assert [r.number for r in records] == list(range(1, 81))
    assert [*run.clock.seconds] == PHASES
    assert all(len(laps) == 80 for laps in run.clock.laps.values())


EVERY = {name: load("gsdistill.distillation", name)() for name in names("gsdistill.distillation")}
EVERY["cds-antithetic"] = CDS(noise="antithetic")
EVERY["vsd-fast"] = VSD(lora_rate=0.1)
# How a run is drawn does not ask which method it has: gsplat's kernels run with one, one with a state, one on surfaces.
by_every_method = pytest.mark.parametrize(
    ("method", "renderer"),
    [pytest.param(method, "cpu", id=name) for name, method in EVERY.items()]
    + [
        pytest.param(EVERY[name], "cuda", id=f"{name}-emulated", marks=EMULATED.marks) for name in ("sds", "vsd", "cfd")
    ],
    indirect=["renderer"],
)


@pytest.mark.slow
@by_every_method
def test_resumes_bit_for_bit_across_a_densification(method, telling, tmp_path):
    whole = begin(telling, method)
    carry(whole, 12)
    first = begin(telling, method)
    carry(first, 7)
    assert len(first.representation) > 40  # it has grown
    saved = checkpoint.save(first, tmp_path, {"seed": 1}, {"torch": "2"})
    second = begin(telling, method)
    checkpoint.restore(second, checkpoint.read(saved))
    assert second.done == 7
    carry(second, 5)
    assert_equal(state(whole), state(second))
    ours, theirs = whole.representation, second.representation
    assert (ours.grown, ours.pruned) == (theirs.grown, theirs.pruned) and ours.grown > 0
    assert whole.method_state.keys() == second.method_state.keys()
    for key, value in whole.method_state.items():
        assert torch.equal(value, second.method_state[key])


def by_hand(prior: AnalyticPrior, method: Distillation, steps: int, backend: str) -> Iterator[dict[str, Parameter]]:
    """The Gaussians after each step of what :func:`begin` makes with CHOOSING, by torch's Adam and gsplat's strategy.

    With these settings the strategy refines in what it takes for step 4, and not in step 5.
    """
    generator, optim = torch.Generator().manual_seed(3), OptimSettings()
    text = encode_with_endings(prior.encode_text, "", "", PromptSettings(), method.endings())
    initial = Ball(count=40).create("", generator)
    initial.opacities[:3] = FAINT
    extent, state = initial.means.norm(dim=-1).max().item(), method.init_state(prior, generator)
    params = {name: Parameter(value.clone()) for name, value in initial.tensors().items()}
    adams = {key: torch.optim.Adam([v], betas=(0.9, 0.99), eps=1e-15, fused=True) for key, v in params.items()}
    strategy = DefaultStrategy(
        prune_opa=CHOOSING.prune_opacity, grow_grad2d=CHOOSING.grow_grad2d, grow_scale3d=CHOOSING.grow_scale3d,
        prune_scale3d=CHOOSING.prune_scale3d, refine_start_iter=0, refine_every=2, reset_every=3,
    )  # fmt: skip
    statistics, due = strategy.initialize_state(), steps // 4
    for done in range(1, steps + 1):
        progress = (done - 1) / steps
        cameras, colours = VIEWS.cameras.draw(2, SIZE, progress, generator), mixed(2, generator)
        out = render(Gaussians(**params), cameras, colours, backend)
        x0 = prior.encode(out.images)
        views = Views(x0.detach(), out.alphas.detach().permute(0, 3, 1, 2), cameras)  # a latent is a pixel here
        surface = corners(out.depths, out.alphas, cameras, x0.shape[-2:]) if "surface" in method.NEEDS else None
        moment = Moment(prior, views, prior.condition(text, cameras), progress, generator, surface=surface)
        guidance, state = method.clipped(moment, state)
        loss = 0.5 * (x0 - (x0 - guidance.gradient).detach()).square().sum() / 2
        (loss + FADING * out.alphas.mean()).backward()
        for name, adam in adams.items():
            rate = getattr(optim, name)(progress)
            adam.param_groups[0]["lr"] = rate * extent if name == "means" else rate
            adam.step()
            adam.zero_grad()
        info = {"means2d": out.screen, "radii": out.radii[..., None].expand(-1, -1, 2), "gaussian_ids": None}
        info |= {"width": SIZE, "height": SIZE, "n_cameras": 2}
        with torch.random.fork_rng(devices=[]):
            if done % due == 0:
                torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            strategy.step_post_backward(params, adams, statistics, 5 if done % due else 4, info)
        yield params


@pytest.mark.slow
@by_every_method
def test_is_a_plain_loop_to_the_last_bit(method, telling, renderer):
    run = begin(telling, method, 20, CHOOSING, fading=FADING)
    run.representation.params["opacities"].data[:3] = FAINT
    for step, params in zip(run, by_hand(telling, method, 20, renderer), strict=True):
        assert_equal(state(run), [*params.values()])
        assert step.count == len(params["means"])
    assert run.representation.grown and run.representation.pruned


def test_is_a_function_of_the_seed_alone(prior):
    runs = []
    for offset in (0, 123):
        torch.manual_seed(offset)  # the global generator must not matter
        run = begin(prior, CDS())
        carry(run, 8)
        runs.append(state(run))
    assert_equal(*runs)


def test_the_budget_holds(prior):
    run = begin(prior, SDS())
    assert max(record.count for record in carry(run, 12)) == 60


class Broken(AnalyticPrior):
    """Answers with NaN."""

    def network(self, latents, timesteps, text, cameras):
        return torch.full_like(latents, torch.nan)


def test_a_step_without_a_finite_gradient_changes_nothing_and_too_many_stop_the_run(prior):
    broken = Broken(*prior._mixtures, prior.latent_shape)
    run = begin(broken, SDS(), 200)
    before = state(run)
    records = carry(run, 50)
    assert_equal(before, state(run))
    assert run.skipped == 50 and not any(record.finite for record in records)
    assert not any(value.any() for value in run.representation.densifier.state_dict().values())
    with pytest.raises(Diverged, match="60 of 60 steps"):
        carry(run, 10)


def test_a_hopeless_run_stops_at_its_end_too(prior):
    """However few steps lie after the last look."""
    broken = Broken(*prior._mixtures, prior.latent_shape)
    with pytest.raises(Diverged, match="59 of 59 steps"):
        carry(begin(broken, SDS(), 59), 59)


class Ill(AnalyticPrior):
    """Answers its first network calls with NaN."""

    def __init__(self, like: AnalyticPrior, bad: int) -> None:
        super().__init__(*reversed(like._mixtures), like.latent_shape)
        self.bad = bad

    def network(self, latents, timesteps, text, cameras):
        self.bad -= 1
        answer = super().network(latents, timesteps, text, cameras)
        return torch.full_like(answer, torch.nan) if self.bad >= 0 else answer


def test_half_of_a_short_run_may_be_skipped(telling):
    ill = Ill(telling, 6)
    run = begin(ill, SDS())
    assert len(carry(run, 12)) == 12 and run.skipped == 6
    ill = Ill(telling, 7)
    run = begin(ill, SDS())
    carry(run, 11)
    told = "7 of 12 steps had a gradient that is not finite; --resume --accept-changes .* method.guidance_scale"
    with pytest.raises(Diverged, match=told):  # the network is well by now, so it is not what is blamed
        carry(run, 1)
    assert run.done == 12 and run.consistent


def test_of_a_run_without_any_step_the_model_is_blamed(prior):
    broken = Broken(*prior._mixtures, prior.latent_shape)
    run = begin(broken, SDS())
    told = "12 of 12 steps had a gradient that is not finite; the network of the prior analytic answers"
    with pytest.raises(Diverged, match=told) as caught:
        carry(run, 12)
    assert "guidance" not in str(caught.value)
    assert broken.evaluations == run.evaluations  # those of the search for the cause do not count
    run.forgiven = 12  # as where the run goes on with other settings
    run.prior, run.iterations = prior, 14
    assert len(carry(run, 2)) == 2 and run.skipped == 12


class Hiccup(AnalyticPrior):
    """Answers one network call with NaN."""

    calls = 0

    def __init__(self, like: AnalyticPrior, bad: int) -> None:
        super().__init__(*reversed(like._mixtures), like.latent_shape)
        self.bad = bad

    def network(self, latents, timesteps, text, cameras):
        self.calls += 1
        answer = super().network(latents, timesteps, text, cameras)
        return torch.full_like(answer, torch.nan) if self.calls == self.bad else answer


@pytest.mark.slow
@by_every_method
@pytest.mark.parametrize("bad", [4, 5, 6])
def test_one_bad_answer_costs_one_step_at_most(method, bad, telling):
    """Whichever of a step's calls it was, what the method remembers included."""
    prior = Hiccup(telling, bad)
    run = begin(prior, method)
    records = carry(run, 10)
    assert run.skipped == sum(not record.finite for record in records) <= 1
    assert all(bool(value.isfinite().all()) for value in run.method_state.values())


def test_a_bad_step_leaves_adam_as_if_it_had_not_been(telling):
    """The fused kernel's own way of skipping against five optimisers that are not stepped at all."""
    scene, generator = begin(telling, SDS()).representation, torch.Generator().manual_seed(1)
    plain = {key: Parameter(value.detach().clone()) for key, value in scene.params.items()}
    kept = {key: torch.optim.Adam([v], betas=(0.9, 0.99), eps=1e-15, fused=True) for key, v in plain.items()}
    for step in range(8):
        gradients = {key: torch.randn(value.shape, generator=generator) for key, value in plain.items()}
        bad = step in (0, 3, 4, 7)
        for key, value in scene.params.items():
            value.grad, plain[key].grad = gradients[key].clone(), gradients[key].clone()
        if bad:
            scene.params["scales"].grad[7, 1] = torch.inf if step else torch.nan
        finite = scene.update(step / 8)
        assert bool(finite) is not bad
        assert all(value.grad is None for value in scene.params.values())
        for key, optimizer in kept.items():
            if not bad:
                rate = getattr(OptimSettings(), key)(step / 8)
                optimizer.param_groups[0]["lr"] = rate * scene.extent if key == "means" else rate
                optimizer.step()
            assert torch.equal(scene.params[key], plain[key])
            ours, theirs = scene.optimizers[key].state[scene.params[key]], optimizer.state.get(plain[key])
            for name, value in ours.items():
                assert torch.equal(value, theirs[name] if theirs else torch.zeros_like(value))


class Deep(SDS):
    """SDS that looks at the depth."""

    NEEDS = ("depth",)


class Touching(SDS):
    """SDS that looks at the surface."""

    NEEDS = ("surface",)


@pytest.mark.parametrize("method", [SDS(), Deep(), Touching()], ids=lambda method: type(method).__name__)
def test_depth_and_surface_are_computed_for_the_methods_that_need_them_alone(method, telling, monkeypatch):
    """Depth is the mean of what is seen, by opacity, and 0 where a latent shows nothing."""
    seen, gradient = [], SDS.gradient

    def spy(self, moment, state):
        seen.append((moment.depth, moment.surface))
        return gradient(self, moment, state)

    monkeypatch.setattr(SDS, "gradient", spy)
    run = begin(telling, method, densify=Gradient())
    renders, render = [], run.representation.render
    run.representation.render = lambda *given: renders.append(render(*given)) or renders[-1]
    run.step()
    ((depth, surface),), (out,) = seen, renders
    assert (depth is not None, surface is not None) == ("depth" in method.NEEDS, "surface" in method.NEEDS)
    alphas, depths = (value.detach()[..., 0] for value in (out.alphas, out.depths))
    if surface is not None:
        assert surface.points.shape == (2, SIZE + 1, SIZE + 1, 3) and not surface.points.requires_grad
        inside = surface.points[surface.alphas > 0.3].norm(dim=-1)
        assert len(inside) > 20 and float(inside.max()) < 1
        return
    if depth is None:
        return
    assert depth.shape == (2, 1, SIZE, SIZE) and not depth.requires_grad
    assert not depth[:, 0][alphas == 0].any() and (alphas == 0).any()  # a latent is a pixel here
    torch.testing.assert_close((depth[:, 0] * alphas), depths)
    distance = run.views.cameras.reach()["distance"]
    assert distance[0] - 1 < float(depth[:, 0][alphas > 0.1].mean()) < distance[1] + 1
