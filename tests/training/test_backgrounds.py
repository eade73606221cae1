"""Backgrounds: shares of colours, what a step's views share, and a surrounding that is learned with the scene."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gsdistill.core.errors import BadFile, ConfigError
from gsdistill.core.structs import Gaussians, Render
from gsdistill.distillation.sds import SDS
from gsdistill.prior.analytic import AnalyticPrior, Mixture
from gsdistill.prior.prompts import EncodedPrompt
from gsdistill.renderer.harmonics import sh_basis
from gsdistill.representation.gaussians import GaussianScene, SceneSettings
from gsdistill.run.changes import differing
from gsdistill.scene.cameras.orbit import Orbit, span
from gsdistill.scene.densify.gradient import Gradient
from gsdistill.scene.init.ball import Ball
from gsdistill.settings.ramp import Ramp
from gsdistill.settings.registry import load, names
from gsdistill.training import checkpoint
from gsdistill.training.backgrounds.base import Background
from gsdistill.training.backgrounds.environment import Environment, directions
from gsdistill.training.backgrounds.grey import Grey
from gsdistill.training.backgrounds.mixed import Mixed
from gsdistill.training.backgrounds.white import White
from gsdistill.training.distiller import Distiller, Stage
from gsdistill.training.views import ViewSettings

SIZE = 16
EVERY = names("gsdistill.training.backgrounds")
PICTURE = torch.tensor([-0.8, -0.8, 0.2], dtype=torch.float64)[:, None, None].expand(3, SIZE, SIZE).reshape(1, -1)
BLUE = Mixture(torch.ones(1), PICTURE, torch.tensor([0.2]))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def empty(cameras, alpha: float = 0.0) -> Render:
    shape = len(cameras), cameras.height, cameras.width
    clear = torch.zeros(*shape, 1)
    return Render(
        torch.zeros(*shape, 3), clear + alpha, clear, torch.zeros(len(cameras), 1, 2), torch.ones(len(cameras), 1).int()
    )


@pytest.mark.parametrize(("name", "colour"), [("grey", 0.5), ("white", 1.0), ("black", 0.0), ("solid", 0.5)])
def test_one_colour_asks_for_no_random_number(name, colour):
    generator, before = seeded(), seeded().get_state()
    drawn = load("gsdistill.training.backgrounds", name)().draw(5, generator)
    assert torch.equal(drawn, torch.tensor([colour, colour, colour, 0.0]).expand(5, 4))
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("name", EVERY)
def test_shares_are_those_of_the_settings(name):
    kind = replace(load("gsdistill.training.backgrounds", name)(), random=0.33, white=0.0, black=0.25, shared="none")
    drawn = kind.draw(20_000, seeded())
    own, black = (drawn == kind.own).all(1), (drawn == 0).all(1)
    expected = {"own": 0.42, "black": 0.25}
    if name == "black":
        assert torch.equal(own, black)
        expected = {"own": 0.67, "black": 0.67}
    for part, seen in (("own", own), ("black", black)):
        assert abs(float(seen.float().mean()) - expected[part]) < 0.01  # 3 standard deviations
    other = drawn[~own & ~black]
    assert torch.equal(other[:, 3], torch.zeros(len(other)))
    assert abs(float(other[:, :3].mean()) - 0.5) < 0.01
    assert abs(float(other[:, :3].var()) - 1 / 12) < 0.003


@pytest.mark.parametrize(("shared", "kinds", "colours"), [("none", 2, 7), ("kind", 1, 8), ("all", 1, 1)])
def test_what_the_views_of_a_step_share(shared, kinds, colours):
    generator, seen = seeded(), []
    kind = White(random=0.5, shared=shared)
    for _ in range(50):
        drawn = kind.draw(8, generator)
        random = ~(drawn[:, :3] == 1).all(1)
        seen.append((len(random.unique()), len(drawn[random].unique(dim=0))))
    assert max(number for number, _ in seen) == kinds
    assert max(number for _, number in seen) == colours


def test_shares_above_one_are_refused():
    with pytest.raises(ConfigError, match=r"random = 0.66, white = 0 and black = 0.5 add up to more than 1"):
        White(random=0.66, black=0.5)
    assert Grey(random=0.33, white=0.56, black=0.11).draw(3, seeded()).shape == (3, 4)  # 1, but for rounding


def test_a_run_of_a_version_that_has_only_names_is_the_same(tmp_path):
    now = {"background": {"name": "mixed", "random": 0.5, "white": 0.0, "black": 0.0, "shared": "none"}}
    assert not differing(now, {"background": "mixed"}, tmp_path)
    assert list(differing(now, {"background": "white"}, tmp_path)) == ["background.name", "background.random"]


def test_directions_are_those_of_the_pixels():
    cameras = Orbit(fov=span(30.0, 70.0), distance=span(2.0, 3.0)).draw(4, SIZE, 0.0, seeded())
    along = directions(cameras)
    assert torch.allclose(along.norm(dim=-1), torch.ones(4, SIZE, SIZE), atol=1e-6)
    rotation, shift = cameras.viewmats[:, :3, :3], cameras.viewmats[:, :3, 3]
    centres = -torch.einsum("bji,bj->bi", rotation, shift)
    points = centres[:, None, None] + 1.7 * along
    local = torch.einsum("bij,bhwj->bhwi", rotation, points) + shift[:, None, None]
    projected = torch.einsum("bij,bhwj->bhwi", cameras.Ks, local)
    pixels = projected[..., :2] / projected[..., 2:]
    assert torch.allclose(pixels[:, :, 3, 0], torch.tensor(3.5), atol=1e-4)
    assert torch.allclose(pixels[:, 5, :, 1], torch.tensor(5.5), atol=1e-4)
    assert (projected[..., 2] > 0).all()


def test_without_hidden_layers_it_is_spherical_harmonics():
    made = Environment(layers=0, degree=3).begin(None, seeded(), torch.device("cpu"))
    cameras = Orbit().draw(2, SIZE, 0.0, seeded())
    weight = made.state()["0.weight"]
    expected = (sh_basis(directions(cameras), 3) @ weight.T).sigmoid()
    half = made.behind(empty(cameras, 0.25), cameras, torch.tensor([1.0, 0.0]))
    assert torch.allclose(half.images[0], 0.75 * expected[0], atol=1e-6)
    assert torch.equal(half.images[1], torch.zeros(SIZE, SIZE, 3))


def begin(views: list[ViewSettings], steps: int = 12) -> Distiller:
    """A run on a scene that hardly covers anything, in a world of one dark blue picture."""
    prior = AnalyticPrior(BLUE, BLUE, (3, SIZE, SIZE))
    initial = Ball(count=20, opacity=0.01).create("", seeded(3))
    splat = GaussianScene(initial, SceneSettings(densify=Gradient(enabled=False)), steps, torch.device("cpu"))
    method = SDS(guidance_scale=Ramp(1.0, 1.0), weighting="uniform")
    text: EncodedPrompt = prior.encode_text("", "")
    then = [Stage(method, more, steps) for more in views[1:]]
    return Distiller(splat, prior, method, text, views[0], steps, seeded(3), then=then)


def with_background(background: Background) -> ViewSettings:
    return ViewSettings(2, SIZE, background)


def surroundings(run: Distiller) -> torch.Tensor:
    cameras = Orbit().draw(8, SIZE, 0.0, seeded(5))
    return run.learned.behind(empty(cameras), cameras, torch.ones(8)).images


def test_it_learns_what_the_prior_wants_behind_the_scene():
    run = begin([with_background(Environment(random=0.0, rate=Ramp(0.02, 0.02)))], 80)
    before = surroundings(run)
    run.run()
    wanted = torch.tensor([0.1, 0.1, 0.6])
    assert (before - wanted).abs().mean() > 0.2
    assert (surroundings(run) - wanted).abs().mean() < 0.1


def parts(run: Distiller) -> dict[str, torch.Tensor]:
    every = {**run.representation.state(), **run.learned.state(), "generator": run.generator.get_state()}
    return {name: value.detach().clone() for name, value in every.items()}


def test_a_run_that_goes_on_from_a_checkpoint_ends_the_same(tmp_path):
    views = [with_background(Environment())]
    straight = begin(views)
    for _ in range(5):
        straight.step()
    path = checkpoint.save(straight, tmp_path, {})
    straight.run()
    resumed = begin(views)
    checkpoint.restore(resumed, checkpoint.read(path))
    resumed.run()
    one, other = parts(straight), parts(resumed)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_a_checkpoint_of_another_surrounding_does_not_fit(tmp_path):
    run = begin([with_background(Environment())])
    run.step()
    path = checkpoint.save(run, tmp_path, {})
    for other in (Environment(width=8), Mixed()):
        with pytest.raises(BadFile, match=r"does not fit a run with these settings: background\.\d"):
            checkpoint.restore(begin([with_background(other)]), checkpoint.read(path))


def test_a_stage_goes_on_with_a_surrounding_of_the_same_form():
    run = begin([with_background(b) for b in (Environment(), Environment(random=0.1), Grey(), Environment(width=4))], 3)
    first = run.learned
    for _ in range(3):
        run.step()
    assert run.learned is first
    assert first.settings.random == 0.1
    for _ in range(3):
        run.step()
    assert run.learned is None
    for _ in range(3):
        run.step()
    assert run.learned.form == (9, 4, 4, 3)


def test_a_step_that_is_skipped_leaves_it_as_it_is():
    run = begin([with_background(Environment(random=0.0))])
    run.step()
    before = {name: value.detach().clone() for name, value in run.learned.state().items()}
    run.terms.append(lambda render, cameras, progress: render.alphas.sum() * float("nan"))
    assert not run.step().finite
    for name, value in run.learned.state().items():
        assert torch.equal(value, before[name])
        assert value.grad is None


def test_the_scene_gets_the_gradient_of_what_it_hides():
    cameras = Orbit().draw(1, SIZE, 0.0, seeded())
    made = Environment().begin(None, seeded(), torch.device("cpu"))
    render = empty(cameras)
    alphas = render.alphas.double().requires_grad_()
    seen = made.behind(replace(render, alphas=alphas), cameras, torch.ones(1))
    seen.images.sum().backward()
    assert torch.allclose(alphas.grad[..., 0], -made.colors(directions(cameras)).sum(-1).double(), atol=1e-6)


def test_gaussians_are_exported_without_it():
    run = begin([with_background(Environment())], 1)
    run.run()
    assert isinstance(run.representation.splat(), Gaussians)
    assert not any(name.startswith("background") for name in run.representation.state())
