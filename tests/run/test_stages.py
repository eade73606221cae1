"""Stages and the finish in settings: what each stage is, what is refused, and what a run, its folder and pages say."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import pytest
import torch
import yaml
from rich.console import Console

import gsdistill as gs
from gsdistill import generate
from gsdistill.cli.main import execute
from gsdistill.core.errors import ConfigError, Notice, Stopped
from gsdistill.disk.places import data_path
from gsdistill.distillation.csd import CSD
from gsdistill.distillation.sds import SDS
from gsdistill.prior.loading import load_prior
from gsdistill.representation.regularizers import RegularizerSettings
from gsdistill.run import stages
from gsdistill.run.changes import differing
from gsdistill.run.config import RunConfig, read_config, resolve
from gsdistill.run.read import read_run
from gsdistill.settings.config import defaults, from_dict, name_of, to_dict, validate
from gsdistill.settings.ramp import Ramp
from gsdistill.settings.registry import names
from gsdistill.settings.yaml import load_yaml
from gsdistill.sweep.plan import equal_steps
from gsdistill.sweep.settings import SweepSettings
from gsdistill.training.finish.none import Without
from gsdistill.training.finish.sds import SDSFinish
from gsdistill.training.listener import Listener

THREE = [
    {"iterations": 30, "resolution": 32, "views": 2},
    {"iterations": 20, "method": {"name": "csd", "t_max": 0.5}, "optim": {"sh": 0.2}},
    {"iterations": 10, "method": {"t_max": "0.9:0.2"}, "regularizers": {"opacity": 5}},
]
FINISH = SDS(Ramp(3, 1.5), t_max=Ramp(0.4, 0.2), weighting="uniform")
GIVEN = {"prompt": "a red torus", "prior": "shapes", "recipe": False, "method": "sds", "stages": THREE}


def test_a_stage_has_the_settings_of_the_run_but_for_its_own():
    config = resolve(GIVEN)
    first, second, third = config.parts
    assert config.iterations == 60
    alone = replace(config, stages=())
    assert first == replace(alone, iterations=30, resolution=32, views=2)
    assert second == replace(
        alone, iterations=20, method=CSD(t_max=Ramp(0.5, 0.5)), optim=replace(alone.optim, sh=Ramp(0.2, 0.2))
    )
    assert third.method == SDS(t_max=Ramp(0.9, 0.2))
    assert (third.iterations, third.regularizers.opacity, third.views) == (10, Ramp(5, 5), config.views)


def test_settings_with_stages_come_back_from_yaml_and_say_all_of_another_class():
    config = resolve(GIVEN)
    assert from_dict(RunConfig, yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config
    assert config.stages[1]["method"] == {"name": "csd", **defaults(CSD), "t_max": 0.5}
    assert config.stages[2]["method"] == {"t_max": "0.9:0.2"}  # of the run's own method, whatever else of it is set
    assert replace(config, method=SDS(guidance_scale=Ramp(7, 7))).parts[2].method.guidance_scale == Ramp(7, 7)


@pytest.mark.parametrize(
    ("iterations", "counts"),
    [(60, [30, 20, 10]), (6, [3, 2, 1]), (120, [60, 40, 20]), (7, [4, 2, 1]), (1, [1])],
)
def test_stages_share_the_steps_of_the_run_as_their_own_numbers_say(iterations, counts):
    assert [part.iterations for part in resolve({**GIVEN, "iterations": iterations}).parts] == counts


@pytest.mark.parametrize("iterations", range(1, 60, 7))
@pytest.mark.parametrize("finish", ["none", "sds"])
def test_no_step_is_lost_and_the_method_has_one_at_least(iterations, finish):
    config = resolve({**GIVEN, "iterations": iterations, "finish": finish})
    parts = config.parts
    assert sum(part.iterations for part in parts) == iterations
    last = config.finish.steps(iterations)
    assert last == (min(round(0.38 * iterations), iterations - 1) if finish == "sds" else 0)
    assert not last or (parts[-1].iterations, parts[-1].method) == (last, FINISH)
    assert len(parts) > bool(last)


def test_a_finish_is_sds_after_the_last_stage_with_what_it_says_and_nothing_else():
    config = resolve({**GIVEN, "iterations": 80, "finish": {"name": "sds", "share": 0.25, "views": 3}})
    *_, before, last = config.parts
    overrides = {"method": last.method, "views": 3, "iterations": 20, "densify": last.densify}
    overrides["regularizers"] = RegularizerSettings(entropy=Ramp(200, 200))
    overrides["optim"] = replace(before.optim, opacities=Ramp(0.15, 0.05))
    assert last == replace(before, **overrides)
    assert last.method == FINISH
    assert last.densify == replace(before.densify, enabled=False)


@pytest.mark.parametrize(("given", "views"), [({}, 4), ({"views": 2}, 2), ({"finish": {"views": None}}, 8)])
def test_a_finish_has_no_more_views_than_the_method(given, views):
    config = resolve({"prompt": "a red torus", "prior": "shapes", "method": "cds", **given})
    assert config.parts[-1].views == views


def test_one_stage_is_the_run_itself():
    config = resolve({"prompt": "a red torus", "prior": "shapes", "method": "sds"})
    assert config.parts == (config,)
    assert config.parts[0] is config
    assert stages.lines(config) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([{"iterations": 3, "viws": 2}], r"stages\[0\]: unknown setting 'viws' .*Did you mean 'views'\?"),
        ([{"iterations": 3, "seed": 2}], r"stages\[0\]: unknown setting 'seed' .*Allowed: iterations, method"),
        ([{"iterations": 3}, {"views": 2}], r"'stages\[1\].iterations' is missing"),
        ([{"iterations": 0}], r"stages\[0\].iterations = 0 is out of range"),
        ([{"iterations": 3, "method": "sdss"}], "unknown method 'sdss'. Did you mean 'sds'"),
        ([{"iterations": 3, "method": {"guidance": 2}}], r"'stages\[0\].method.guidance'"),
        ([{"iterations": 3, "optim": {"sh": -1}}], r"stages\[0\].optim.sh = -1"),
        ([7], r"stages\[0\] = 7 has the wrong type; expected a mapping of settings"),
        ("two", "stages = 'two' has the wrong type"),
        ({"iterations": 3}, "stages = .* has the wrong type"),
    ],
)
def test_a_wrong_stage_is_one_sentence_that_names_it(wrong, words):
    with pytest.raises(ConfigError, match=words):
        resolve({**GIVEN, "stages": wrong})


FIRST = {"iterations": 3, "views": 2, "method": {"name": "csd", "t_max": 0.5}, "optim": {"sh": 0.2, "means": 0.1}}
SECOND = {"iterations": 4, "method": {"t_min": 0.1}, "resolution": 64}


@pytest.mark.parametrize(
    ("typed", "first", "second"),
    [
        ({"views": 3}, {"views": None}, {}),
        ({"method": {"name": "ism"}}, {"method": None}, {"method": None}),
        ({"method": "csd"}, {}, {"method": None}),
        ({"method": "sds"}, {"method": None}, {}),
        ({"method": {"t_max": 0.7}}, {"method": {"name": "csd"}}, {}),
        ({"optim": {"sh": 0.1}}, {"optim": {"means": 0.1}}, {}),
        ({"optim": {"sh": 0.1, "means": 0.1}}, {"optim": None}, {}),
        ({"iterations": 3, "seed": 1}, {}, {}),
        ({"resolution": 32, "method": {"t_min": 0.2}}, {}, {"resolution": None, "method": None}),
    ],
)
def test_what_is_typed_holds_for_every_stage(typed, first, second):
    settings = {"method": {"name": "sds"}, "stages": [FIRST, SECOND]}
    wanted = [{**FIRST, **first}, {**SECOND, **second}]
    left = [{key: value for key, value in stage.items() if value is not None} for stage in wanted]
    assert stages.over(settings, typed)["stages"] == left
    own = [{"iterations": 1}]
    assert stages.over(settings, {**typed, "stages": own})["stages"] == own


def test_a_users_settings_lie_over_the_stages_of_a_recipe():
    base = {"prompt": "x", "prior": "mvdream"}
    config = resolve({**base, "method": {"name": "sds", "t_min": 0.1}, "views": 12, "iterations": 100})
    found = [(part.views, part.resolution, part.method.t_min, part.iterations) for part in config.parts]
    assert found == [(12, 64, Ramp(0.1, 0.1), 50), (12, 256, Ramp(0.1, 0.1), 50)]
    assert config.parts[1].method.t_max == Ramp(0.68, 0.5, until=0.6)


def test_what_stages_say_of_the_run_stands_for_it():
    """Where the run has no method of its own it is the first stage's, by which recipe and folder go."""
    both = [{"iterations": 2, "method": "sds"}, {"iterations": 4, "method": {"name": "csd", "t_max": 0.5}}]
    config = resolve({"prompt": "a red torus", "prior": "shapes", "stages": both})
    assert (name_of(config.method), config.label, config.iterations) == ("sds", "sds-seed0", 6)
    assert [name_of(part.method) for part in config.parts] == ["sds", "csd"]


def test_a_flag_for_another_method_drops_what_stages_say_of_the_runs_own():
    base = read_config("vsd-prolificdreamer")
    config = resolve(stages.over({**base, "prompt": "x", "prior": "sd15"}, {"method": {"name": "sds"}}))
    assert [part.method for part in config.parts] == [config.method, config.method]


def test_a_config_by_hand_takes_names_and_lists():
    given = {"method": "sds", "stages": [{"iterations": 2, "method": "csd"}, {"iterations": 4, "views": 2}]}
    config = validate(RunConfig("a red torus", **given))  # type: ignore[arg-type]
    assert [(name_of(part.method), part.views) for part in config.parts] == [("csd", 4), ("sds", 2)]
    with pytest.raises(ConfigError, match=r"stages\[0\] = 3 has the wrong type"):
        validate(RunConfig("a red torus", stages=[3]))  # type: ignore[arg-type]


@pytest.mark.slow
def test_changes_that_would_go_on_in_another_stage_are_refused(tmp_path, capsys):
    given = {"prompt": "a red torus", "prior": "shapes", "method": "csd", "finish": {"name": "sds", "share": 0.5}}
    given |= {"iterations": 6, "views": 1, "resolution": 16, "snapshots": 0, "output": str(tmp_path / "run")}

    class Stopper(Listener):
        def on_step(self, step, run):
            if step.number == 4:
                run.stop()

    with pytest.raises(Stopped):
        generate.run(resolve(given), Console(), extras=False, listeners=[Stopper()])
    again = ["generate", "--config", str(tmp_path / "run"), "--resume", "--accept-changes"]
    assert execute([*again, "--iterations", "20"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "after 4 steps the run is in stage 2 of 2, and with these settings it would be in stage 1 of 2" in told
    assert execute([*again, "--iterations", "7"]) == 0


def test_a_run_of_a_version_without_finishes_is_not_resumed_into_one(tmp_path):
    now = to_dict(resolve({"prompt": "a red torus", "prior": "shapes", "method": "csd"}))
    before = {key: value for key, value in now.items() if key not in ("finish", "stages")}
    assert set(differing(now, before, tmp_path)) == {"finish.name"}


def test_a_sweep_compares_methods_alone_and_with_its_own_finish_whatever_their_configs_say(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("method: csd\nfinish: {name: sds, share: 0.9, views: 2}\n")
    alone, more = {"methods": ("csd",), "prompts": ("a red torus",), "seeds": (0,), "iterations": 20}, {"finish": "sds"}
    settings = SweepSettings(**alone, configs=(f"csd={mine}",), output=tmp_path)
    (run,) = equal_steps(settings)
    assert isinstance(run.config.finish, Without) and run.folder.name == "csd-seed0-20steps"
    first, second = equal_steps(replace(settings, **more, finish_iterations=7))
    assert first.config == run.config and second.alone is first
    assert isinstance(second.config.finish, SDSFinish) and second.config.finish.views == 2
    assert [part.iterations for part in second.config.parts] == [20, 7]
    assert second.config.parts[0] == replace(run.config, output=second.config.output)
    assert second.folder.name == "csd-sds-seed0-27steps"


@pytest.mark.slow
def test_flags_speak_of_stages_and_of_the_finish(tmp_path, capsys):
    file = tmp_path / "three.yaml"
    file.write_text(yaml.safe_dump({**GIVEN, "stages": [{**one, "views": 1} for one in THREE]}))
    assert execute(["generate", "--config", str(file), "--views", "2", "--iterations", "9", "--dry-run"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["stages"][0] == {"iterations": 30, "resolution": 32}
    assert (shown["views"], shown["iterations"]) == (2, 9)
    assert execute(["generate", "--config", str(file), "--finish", "sdss"]) == 2
    assert "unknown finish 'sdss'. Did you mean 'sds'?" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_of_stages_and_a_finish_says_so_everywhere(tmp_path, capsys):
    file, folder = tmp_path / "three.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump({**GIVEN, "init": {"name": "ball", "count": 50}, "views": 1, "checkpoint_every": 0}))
    words = ["generate", "--config", str(file), "--iterations", "8", "--finish", "sds", "--output", str(folder)]
    assert execute(words) == 0
    told = capsys.readouterr().out
    for line in (
        "stage 1: 2 steps of sds at 32 px, 2 views each", "stage 2: 2 steps of csd, 1 view each",
        "stage 3: 1 step of sds, 1 view each", "finish: 3 steps of sds, 1 view each (--finish none for the pure",
    ):  # fmt: skip
        assert line in told
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["finish"] == "sds"
    assert [(one["method"], one["iterations"]) for one in summary["stages"]] == [
        ("sds", 2), ("csd", 2), ("sds", 1), ("sds", 3)
    ]  # fmt: skip
    assert read_run(folder).method == "sds, csd, finish sds"
    assert "sds, csd, finish sds" in (folder / "report.html").read_text()
    again = load_yaml(folder / "config.yaml")
    assert resolve(again).parts == resolve(read_config(str(folder))).parts
    assert len(resolve(again).parts) == 4


def test_the_folder_says_what_finished_the_run():
    config = resolve({"prompt": "a red torus", "prior": "shapes", "method": "csd", "finish": "none"})
    assert config.folder.as_posix().endswith("outputs/a-red-torus/csd-seed0")
    assert replace(config, finish=SDSFinish()).folder.name == "csd-sds-seed0"


def test_only_recipes_of_the_methods_that_need_it_have_a_finish():
    finished = {
        method
        for method in names("gsdistill.distillation")
        if not isinstance(resolve({"prompt": "a red torus", "prior": "shapes", "method": method}).finish, Without)
    }
    assert finished == {"cds", "csd", "asd"}
    for file in data_path("configs").glob("*.yaml"):
        settings = load_yaml(file)
        if not file.stem.startswith("shapes-"):
            assert isinstance(resolve({**settings, "prompt": "x", "prior": "sd15"}).finish, Without), file.stem


def test_a_run_of_a_version_without_finishes_has_none(tmp_path):
    old = to_dict(resolve({"prompt": "a red torus", "prior": "shapes", "method": "cds", "finish": "none"}))
    del old["finish"], old["stages"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old))
    assert isinstance(resolve(read_config(str(tmp_path))).finish, Without)
    assert isinstance(resolve(read_config(str(tmp_path / "config.yaml"))).finish, Without)
    (tmp_path / "config.yaml").write_text("{prompt: a red torus, prior: shapes, method: cds}")  # one's own
    assert isinstance(resolve(read_config(str(tmp_path / "config.yaml"))).finish, SDSFinish)


def test_every_shipped_config_of_stages_has_the_lengths_that_it_says():
    found = {}
    for file in data_path("configs").glob("*.yaml"):
        parts = resolve({**load_yaml(file), "prompt": "x", "prior": "sd15", "finish": "none"}).parts
        if len(parts) > 1 and not file.stem.startswith("shapes-"):
            found[file.stem] = [(part.iterations, part.resolution) for part in parts]
    assert found == {
        "asd-scaledreamer": [(10000, 64), (15000, 256)],
        "asd-scaledreamer-mvdream": [(10000, 64), (15000, 256)],
        "cfd-mvdream": [(5000, 64), (5000, 256)],
        "cfd-paper": [(5000, 128), (20000, 512)],
        "dsd-paper": [(5000, 128), (5000, 512)],
        "rfds-sd3": [(5000, 256), (10000, 512)],
        "rfds-rev-sd3": [(5000, 256), (10000, 512)],
        "sds-bridge-threestudio": [(5000, 64), (20000, 512)],
        "sds-dreamgaussian": [(150, 128), (150, 256), (200, 512)],
        "sds-dreamgaussian-mvdream": [(150, 128), (150, 256), (200, 512)],
        "sds-milestones": [(5000, 64), (3000, 256), (2000, 512)],
        "sds-mvdream": [(5000, 64), (5000, 256)],
        "vsd-esd": [(5000, 64), (20000, 512)],
        "vsd-prolificdreamer": [(5000, 64), (20000, 512)],
        "vsd-prolificdreamer-authors": [(2000, 512), (3000, 512), (20000, 512)],
    }


def test_the_library_tells_of_the_finish_and_leaves_it_out_where_asked():
    with pytest.warns(Notice, match=r'finish: 2 steps of sds.*\(finish="none" for the pure method\)'):
        run = gs.distil("a red torus", "shapes", method="cds", iterations=5)
    assert [(name_of(stage.method), stage.iterations) for stage in run.stages] == [("cds", 3), ("sds", 2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pure = gs.distil("a red torus", run.prior, method="cds", iterations=5, finish="none")
    assert [stage.iterations for stage in pure.stages] == [5]


@pytest.mark.slow
def test_a_shipped_config_starts_with_fewer_gaussians_and_grows_where_the_gradient_asks():
    with pytest.warns(Notice):
        given = {**read_config("shapes-cds-growing"), "iterations": 20, "views": 4}
        run = gs.distil("a red torus", "shapes", **given)
    few = len(run.representation)
    counts = [step.count for step in run]
    method = run.stages[0].iterations
    assert few == 600 and run.representation.grown > 50
    assert counts[method - 1] > few and set(counts[method:]) == {counts[method - 1]}  # the finish grows none


def test_stages_with_two_texts_of_one_name_are_refused(tmp_path):
    """Both texts would be one branch."""
    methods = [{"name": "sds-bridge", "source": "", "target": f", {word}"} for word in ("high quality", "high detail")]
    config = resolve({"prompt": "a red torus", "prior": "shapes", "output": str(tmp_path / "run"), "stages": [
        {"method": method, "iterations": 2} for method in methods
    ]})  # fmt: skip
    with pytest.raises(ConfigError, match=r"method\.target: stages of one run have one text, not ', high quality' and"):
        generate.prepared(config, load_prior("shapes"), torch.device("cpu"))
