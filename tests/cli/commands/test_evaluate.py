"""Which figures there are: against the truth where it is known, of the splat alone in any case, by a prior if asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pages.folder import CHAIR, make_run
from tiny.stable_diffusion import build

from gsdistill.cli.main import execute
from gsdistill.evaluation import plain
from gsdistill.evaluation.without_truth import MEANINGS
from gsdistill.run.measure import measure_run
from gsdistill.run.read import read_run
from gsdistill.settings.yaml import dump, load_yaml

ALONE = set(plain.MEANINGS)


def figures(*words: object, code: int = 0) -> dict:
    assert execute(["evaluate", *map(str, words), "--json", "found.json", "--overwrite"]) == code
    return json.loads(Path("found.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_file_is_measured_alone_or_against_what_its_prompt_names(capsys):
    shutil.copy(CHAIR, "chair.ply")
    alone = figures("chair.ply")
    assert alone.keys() == ALONE
    true = figures("chair.ply", "--prompt", "a blue chair", "--world", "shapes")
    assert true["name_right"] is True and {name: true[name] for name in ALONE} == alone and "model" not in true
    assert not any(path.name == "evaluation.json" for path in CHAIR.parent.iterdir())


def test_a_file_is_measured_against_the_object_of_its_prompt_unless_a_world_is_named(capsys, tmp_path):
    shutil.copy(CHAIR, "chair.ply")
    object_of = figures("chair.ply", "--prompt", "a chair")
    assert object_of["model"].startswith("chair_") and object_of["truth"] in ("meshes", "reference splats")
    run = make_run(tmp_path / "run")
    assert figures(run, "--world", "objects")["model"].startswith("chair_") and not (run / "evaluation.json").exists()
    assert figures(run)["name_right"] is True and (run / "evaluation.json").exists()
    capsys.readouterr()
    for words, why in {
        ("chair.ply", "--world", "objects"): "world = 'objects' is what a prompt is looked up in: add --prompt",
        ("chair.ply", "--prompt", "a chair", "--world", "object"): "unknown world 'object'. Did you mean 'objects'?",
        ("chair.ply", "--world", "shapes", "--truth", run): "world and truth are two truths; give one of them",
    }.items():
        assert execute(["evaluate", *map(str, words)]) == 2
        assert why in capsys.readouterr().err


@pytest.mark.slow
def test_every_format_and_a_run_may_be_splat_and_truth(capsys, tmp_path):
    run = make_run(tmp_path / "run")
    assert execute(["export", str(run), "chair.sog"]) == 0
    beside = figures("chair.sog", "--truth", run)
    assert beside["iou"] > 0.98 and beside["psnr"] > 40 and "name_right" not in beside
    assert not (run / "evaluation.json").exists()


def test_a_prompt_of_no_world_leaves_what_needs_no_truth(tmp_path, capsys):
    run = make_run(tmp_path / "run", prompt="a corgi")
    found = figures(run)
    assert found.keys() == ALONE == json.loads((run / "evaluation.json").read_text()).keys()
    assert "the object of 'a corgi' is not known" in capsys.readouterr().err


@pytest.mark.slow
def test_words_that_the_world_knows_are_no_truth_of_another_prior(tmp_path):
    model = build(tmp_path / "model")
    run = make_run(tmp_path / "run", prior=str(model))
    assert measure_run(read_run(run)).keys() == ALONE
    assert "iou" in measure_run(read_run(make_run(tmp_path / "gone", prior=str(tmp_path / "no-model-here"))))


@pytest.mark.slow
def test_a_prior_is_asked_about_the_prompt(tmp_path, capsys):
    model = build(tmp_path / "model")
    run = make_run(tmp_path / "run", prompt="a corgi", prior=str(model))
    found = figures(run, "--prior", model)
    assert found.keys() == {*MEANINGS, "judge"} == json.loads((run / "evaluation.json").read_text()).keys()
    assert found["judge"] == str(model)
    shown = capsys.readouterr().out
    assert "what the prior sees" in shown and "judge" in shown and found["views_seen"] in shown


def test_the_file_of_figures_replaces_nothing_that_is_read_and_nothing_unasked(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    shutil.copy(CHAIR, "chair.ply")
    Path("notes.json").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def refused(*words: str) -> str:
        assert execute(["evaluate", *words]) == 2
        return capsys.readouterr().err

    for asked in ([], ["--overwrite"]):
        assert "choose another --json" in refused("chair.ply", "--json", "./chair.ply", *asked)
        for name in ("config.yaml", "gaussians.ply", "summary.json", "evaluation.json"):
            if (run / name).exists():
                assert "choose another --json" in refused("run", "--json", f"run/{name}", *asked)
        assert "json is empty" in refused("chair.ply", "--json", "", *asked)
        assert "is no folder that can be written to" in refused("chair.ply", "--json", "notes.json/a.json", *asked)
    assert "notes.json exists" in refused("chair.ply", "--json", "notes.json")
    assert "add --json" in refused("chair.ply", "--overwrite")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert execute(["evaluate", "chair.ply", "--json", "notes.json", "--overwrite"]) == 0
    assert json.loads(Path("notes.json").read_text()).keys() == ALONE


@pytest.mark.parametrize("prompt", ["", " "])
def test_an_empty_prompt_is_refused(capsys, prompt):
    assert execute(["evaluate", str(CHAIR), "--prompt", prompt]) == 2
    assert f"prompt = '{prompt}' is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("prompts", {"directon": "view"}, "unknown setting 'prompts.directon'"),
        ("model", {"precision": 7}, "model.precision = 7"),
        ("prompts", [1], "prompts = [1] has the wrong type"),
    ],
)
def test_settings_of_a_run_that_its_prior_cannot_take_are_named_with_their_file(tmp_path, capsys, name, value, message):
    config = make_run(tmp_path / "run", prompt="a corgi") / "config.yaml"
    config.write_text(dump({**load_yaml(config), name: value}))
    assert execute(["evaluate", "run", "--prior", "shapes"]) == 2
    assert f"run/config.yaml: {message}" in " ".join(capsys.readouterr().err.split())
