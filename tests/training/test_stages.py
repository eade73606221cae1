"""Stages of a run: each is what a run of its own would be, and a run that stops anywhere among them goes on."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
import torch

from gsdistill.core.errors import BadFile, ConfigError, UserError
from gsdistill.core.structs import Gaussians
from gsdistill.distillation.cds import CDS
from gsdistill.distillation.csd import CSD
from gsdistill.distillation.sds import SDS
from gsdistill.distillation.vsd import VSD
from gsdistill.representation.gaussians import GaussianScene, SceneSettings
from gsdistill.representation.optimizer import OptimSettings
from gsdistill.scene.densify.gradient import Gradient
from gsdistill.scene.init.ball import Ball
from gsdistill.settings.ramp import Ramp
from gsdistill.training import checkpoint
from gsdistill.training.backgrounds.white import White
from gsdistill.training.distiller import Distiller, Stage
from gsdistill.training.views import ViewSettings

SIZE = 8
VIEWS = ViewSettings(2, SIZE)
LEVEL = {name: Ramp(0.01, 0.01) for name in ("means", "scales", "quats", "opacities", "sh")}
STEADY = SceneSettings(optim=OptimSettings(**LEVEL))
GROWING = SceneSettings(densify=Gradient(enabled=True, start=0.0, stop=1.0, every=0.25, grow_grad2d=1e-4, budget=40))
HERE = torch.device("cpu")


def begin(prior, *stages: Stage, initial: Gaussians | None = None, generator: torch.Generator | None = None):
    generator = generator or torch.Generator().manual_seed(3)
    initial = initial or Ball(count=20).create("", generator)
    first, *then = stages
    scene = GaussianScene(initial, first.settings or SceneSettings(), first.iterations, HERE)
    text = prior.encode_text("", "")
    return Distiller(scene, prior, first.method, text, first.views, first.iterations, generator, then=then)


def content(run: Distiller) -> dict[str, torch.Tensor]:
    found = {f"scene.{name}": value.detach() for name, value in run.representation.state().items()}
    return {**found, **run.method_state, "generator": run.generator.get_state(), "skipped": torch.tensor(run.skipped)}


def assert_same(one: Distiller, other: Distiller) -> None:
    a, b = content(one), content(other)
    assert a.keys() == b.keys()
    assert not [name for name in a if not torch.equal(a[name], b[name])]


def test_another_method_begins_as_a_run_from_the_splat_of_the_stage_before(prior):
    first, second = Stage(CDS(), VIEWS, 5, GROWING), Stage(SDS(), replace(VIEWS, count=3), 6, STEADY)
    both = begin(prior, first, second)
    figures = [(step.number, len(step.images)) for step in both]
    assert figures == [(n, 2 if n <= 5 else 3) for n in range(1, 12)]
    alone = begin(prior, first)
    list(alone)
    after = begin(prior, second, initial=alone.representation.splat(), generator=alone.generator)
    after.representation.extent = alone.representation.extent
    list(after)
    grown = alone.representation.grown
    assert grown > 0
    assert (both.representation.grown, after.representation.grown) == (grown, 0)
    after.representation.grown, after.representation.pruned = grown, alone.representation.pruned
    assert_same(both, after)


@pytest.mark.parametrize("method", [CSD(t_max=Ramp(0.9, 0.9)), VSD(t_max=Ramp(0.9, 0.9))], ids=["csd", "vsd"])
def test_stages_of_one_method_with_level_settings_are_one_run(method, prior):
    whole = begin(prior, Stage(method, VIEWS, 8, STEADY))
    parts = begin(prior, *(Stage(method, VIEWS, count, STEADY) for count in (3, 1, 4)))
    list(whole)
    parts._begin = _without_draws(parts._begin, parts.generator)  # a stage draws a state, also where it takes none
    list(parts)
    assert_same(whole, parts)


def _without_draws(begin, generator):
    def quietly(place: int) -> None:
        numbers = generator.get_state()
        begin(place)
        generator.set_state(numbers)

    return quietly


@pytest.mark.slow
@pytest.mark.parametrize("stop", range(1, 12))
def test_a_run_that_stops_in_any_stage_or_between_two_goes_on_as_if_it_had_not(stop, prior, tmp_path):
    stages = (
        Stage(CDS(), VIEWS, 4, GROWING),
        Stage(VSD(), ViewSettings(1, SIZE, White()), 4, STEADY),
        Stage(VSD(t_max=Ramp(0.5, 0.5)), VIEWS, 3),  # with the settings that the scene was made with
    )
    whole, broken, mended = (begin(prior, *stages) for _ in range(3))
    list(whole)
    list(islice(broken, stop))
    checkpoint.restore(mended, checkpoint.read(checkpoint.save(broken, tmp_path, {})))
    assert_same(broken, mended)
    assert mended.stage == broken.stage
    list(mended)
    assert whole.representation.grown > 0
    assert_same(whole, mended)


def test_a_checkpoint_of_other_stages_is_refused_and_changes_nothing(prior, tmp_path):
    made = begin(prior, Stage(SDS(), VIEWS, 3), Stage(VSD(), VIEWS, 3))
    list(islice(made, 4))
    path = checkpoint.save(made, tmp_path, {})
    stages = Stage(CDS(), VIEWS, 3, GROWING), Stage(SDS(), VIEWS, 3, STEADY)
    run, same = (begin(prior, *stages) for _ in range(2))
    with pytest.raises(BadFile, match="does not fit a run with these settings"):
        checkpoint.restore(run, checkpoint.read(path))
    assert (run.done, run.stage, run.representation.settings) == (0, same.stage, GROWING)
    assert_same(run, same)
    list(run), list(same)
    assert_same(run, same)


def test_progress_is_that_of_the_stage_and_steps_are_those_of_the_run(prior):
    seen: list[float] = []
    run = begin(prior, Stage(SDS(), VIEWS, 4), Stage(SDS(), VIEWS, 2))
    run.terms.append(lambda render, cameras, progress: seen.append(progress) or render.images.new_zeros(()))
    assert [step.number for step in run] == [1, 2, 3, 4, 5, 6]
    assert seen == [0.0, 0.25, 0.5, 0.75, 0.0, 0.5]
    assert (run.iterations, run.over, run.stage.iterations) == (6, True, 2)


def test_a_method_of_another_form_of_state_begins_anew(prior):
    run = begin(prior, Stage(VSD(rank=2), VIEWS, 2), Stage(VSD(rank=2), VIEWS, 2), Stage(VSD(rank=1), VIEWS, 2))
    steps = iter(run)
    held = [next(steps) and dict(run.method_state) for _ in range(4)]
    moments = run.representation.optimizers["means"].state
    assert not moments  # after the last step of the second stage
    counts = [next(value for key, value in state.items() if "step" in key) for state in held]
    assert [float(count) for count in counts] == [1, 2, 3, 0]


def test_no_step_follows_one_that_broke_off_while_the_scene_changed_nor_the_last(prior, monkeypatch, tmp_path):
    run, whole = (begin(prior, Stage(SDS(), VIEWS, 3)) for _ in range(2))
    run.step()
    path = checkpoint.save(run, tmp_path, {})

    def broken(progress):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run.representation, "update", broken)
        with pytest.raises(KeyboardInterrupt):
            run.step()
    with pytest.raises(UserError, match="failed while it changed the scene"):
        run.step()
    checkpoint.restore(run, checkpoint.read(path))
    list(run), list(whole)
    assert_same(run, whole)
    with pytest.raises(UserError, match="all 3 steps are made"):
        run.step()


@pytest.mark.parametrize("wrong", [None, 1.0, torch.ones(2)])
def test_a_term_that_gives_no_number_is_named(wrong, prior):
    def mine(render, cameras, progress):
        return wrong

    run = begin(prior, Stage(SDS(), VIEWS, 3))
    run.terms.append(mine)
    with pytest.raises(ConfigError, match=r"the term <function .*mine.* returned .*, not a tensor with one number"):
        run.step()
    assert run.consistent
