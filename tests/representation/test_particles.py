"""Several scenes that take turns: each is as if alone, a run goes on from a checkpoint, and all of them are written."""

from __future__ import annotations

import pytest
import torch

from gsdistill.cli.main import execute
from gsdistill.core.errors import BadFile
from gsdistill.distillation.sds import SDS
from gsdistill.distillation.vsd import VSD
from gsdistill.prior.analytic import AnalyticPrior, Mixture
from gsdistill.representation.gaussians import GaussianScene, SceneSettings
from gsdistill.representation.particles import Particles, steps_of_each
from gsdistill.scene.densify.gradient import Gradient
from gsdistill.scene.init.ball import Ball
from gsdistill.scene.read import read_splat
from gsdistill.settings.ramp import Ramp
from gsdistill.training import checkpoint
from gsdistill.training.distiller import Distiller, Stage
from gsdistill.training.views import ViewSettings

CPU = torch.device("cpu")
GROWING = SceneSettings(densify=Gradient(enabled=True, start=0.0, stop=1.0, every=0.34, grow_grad2d=1e-4, budget=60))
VIEWS, METHOD = ViewSettings(2, 8), SDS()


def world() -> AnalyticPrior:
    """A prior of which grey pictures of 8 pixels are likely, blue ones with the prompt."""
    blue = torch.tensor([-0.8, -0.8, 0.2])[:, None, None].expand(3, 8, 8).reshape(1, -1)
    one = torch.ones(1)
    return AnalyticPrior(Mixture(one, blue, 0.2 * one), Mixture(one, torch.zeros(1, 192), one), (3, 8, 8))


def particles(count: int, iterations: int, settings=GROWING) -> Particles:
    generator = torch.Generator().manual_seed(5)
    starts = [Ball(count=20).create("", generator) for _ in range(count)]
    steps = steps_of_each(iterations, count)
    return Particles([GaussianScene(one, settings, n, CPU) for one, n in zip(starts, steps, strict=True)])


def begin(scene, method=METHOD, iterations=9, then=()):
    prior = world()
    text = prior.encode_text("", "")
    return Distiller(scene, prior, method, text, VIEWS, iterations, torch.Generator().manual_seed(1), then=then)


def test_each_has_its_share_of_the_steps():
    assert steps_of_each(9, 3) == [3, 3, 3] and steps_of_each(10, 4) == [3, 3, 2, 2]
    assert steps_of_each(2, 3) == [1, 1, 1] and steps_of_each(7, 1) == [7]
    for iterations in range(4, 40):
        assert sum(steps_of_each(iterations, 4)) == iterations


def test_a_step_changes_the_one_whose_turn_it_is_and_no_other():
    scene = particles(3, 9)
    before = [one.splat().means.detach().clone() for one in scene.particles]
    for step, _ in enumerate(begin(scene)):
        after = [one.splat().means.detach().clone() for one in scene.particles]
        same = [a.shape == b.shape and torch.equal(a, b) for a, b in zip(after, before, strict=True)]
        assert same == [step % 3 != number for number in range(3)]
        before = after
    assert all(one.grown > 0 for one in scene.particles), "not each has grown at its own steps"
    assert len(scene) == len(scene.particles[0]) and scene.grown == scene.particles[0].grown


def test_one_particle_is_the_scene_alone():
    alone = particles(1, 9).particles[0]
    both = particles(1, 9), alone
    for scene in both:
        list(begin(scene))
    for name, value in both[1].state().items():
        assert torch.equal(both[0].state()[f"1.{name}"], value), name


@pytest.mark.parametrize("stop", [1, 4, 5, 7])
def test_a_stopped_run_ends_as_if_it_had_not_been_stopped(stop, tmp_path):
    """Also in the second stage, which begins at the fifth step with the first one's turn."""
    method, then = VSD(t_max=Ramp(0.9, 0.9)), [Stage(VSD(t_max=Ramp(0.5, 0.5)), VIEWS, 4, GROWING)]
    whole = begin(particles(2, 5), method, 5, then)
    list(whole)
    first = begin(particles(2, 5), method, 5, then)
    for step in first:
        if step.number == stop:
            first.stop()
    checkpoint.save(first, tmp_path, {})
    second = begin(particles(2, 5), method, 5, then)
    checkpoint.restore(second, checkpoint.read_last(tmp_path)[0])
    list(second)
    found, wanted = second.representation.state(), whole.representation.state()
    assert found.keys() == wanted.keys()
    assert not [name for name in wanted if not torch.equal(found[name], wanted[name])]


def test_a_checkpoint_of_fewer_or_broken_particles_is_refused(tmp_path):
    run = begin(particles(2, 9))
    next(iter(run))
    checkpoint.save(run, tmp_path, {})
    saved, _ = checkpoint.read_last(tmp_path)
    with pytest.raises(BadFile, match="does not fit"):
        checkpoint.restore(begin(particles(3, 9)), saved)
    state = run.representation.state()
    assert run.representation.misfit(state) is None
    assert run.representation.misfit({**state, "made": torch.zeros(2)}) == "made"
    assert run.representation.misfit({**state, "3.param.means": torch.zeros(1)}) == "3.param.means"
    assert run.representation.misfit({k: v for k, v in state.items() if k != "2.extent"}) == "2.extent"


def test_more_particles_than_steps_are_refused(tmp_path, capsys):
    words = ["generate", "--prompt", "a red torus", "--prior", "shapes", "--output", str(tmp_path / "run")]
    assert execute([*words, "--particles", "5", "--iterations", "4"]) == 2
    assert "particles = 5: each needs a step, and iterations = 4" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_all_splats_of_a_run_are_written_and_replaced(tmp_path):
    words = ["generate", "--prompt", "a red torus", "--method", "vsd", "--init.count", "30", "--resolution", "32"]
    words += ["--views", "1", "--no-recipe", "--prior", "shapes", "--output", str(tmp_path / "run")]
    assert execute([*words, "--particles", "3", "--iterations", "6"]) == 0
    folder = tmp_path / "run"
    places = [folder, folder / "particles" / "2", folder / "particles" / "3"]
    splats = [read_splat(place / "gaussians.ply") for place in places]
    assert all((place / "views.png").exists() for place in places)
    means = [splat.means for splat in splats]
    assert not any(torch.equal(means[a], means[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert execute([*words, "--iterations", "2", "--overwrite"]) == 0
    assert not (folder / "particles").exists(), "splats of the run before are left"
