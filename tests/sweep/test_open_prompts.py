"""Sweeps with a prior whose prompts are any: what needs the truth stays empty, all else is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import stable_diffusion

from gsdistill.cli.main import execute
from gsdistill.core.errors import PromptError
from gsdistill.evaluation import fronts, plain
from gsdistill.sweep.figure import GAP, WIDEST
from gsdistill.sweep.plan import equal_steps, world_of_sweep
from gsdistill.sweep.settings import SweepSettings
from gsdistill.training.distiller import Distiller, Diverged
from gsdistill.worlds.base import world_named

PROMPTS = ("a corgi riding a bike", "zebra, 4k")
TRUE = ("iou", "colour_error", "centre_chamfer", "floaters", "name_right", "colour_right", "iou_over_first")


@pytest.fixture(scope="module")
def prior(tmp_path_factory) -> Path:
    """A Stable Diffusion of random weights."""
    return stable_diffusion.build(tmp_path_factory.mktemp("tiny") / "sd")


def sweep(output: Path, prior: Path, *more: str) -> int:
    (output.parent / "prompts.txt").write_text(f"# two\n{PROMPTS[0]}\n\n{PROMPTS[1]}\n")
    words = [
        "--prompt-file",
        str(output.parent / "prompts.txt"),
        "--seeds",
        "0",
        "--iterations",
        "2",
        "--equal",
        "steps",
    ]
    return execute(["sweep", "--methods", "sds", "csd", "--prior", str(prior), *words, "--output", str(output), *more])


@pytest.fixture(scope="module")
def done(tmp_path_factory, prior) -> Path:
    """A finished sweep without the prior's figures; it must not be changed."""
    output = tmp_path_factory.mktemp("sweep") / "done"
    assert sweep(output, prior) == 0
    return output


@pytest.fixture
def copy(done, tmp_path) -> Path:
    return shutil.copytree(done, tmp_path / "copy")


def results(output: Path) -> dict:
    return json.loads((output / "results.json").read_text())


@pytest.mark.slow
def test_figures_without_truth_are_filled_and_those_of_the_truth_are_empty(done):
    found = results(done)
    assert found["true_saturation"] is None
    assert [row["prompt"] for row in found["rows"]] == [*PROMPTS, *PROMPTS]
    for row in found["rows"]:
        assert row["failure"] is row["name"] is row["views_seen"] is None
        assert all(row[name] is None for name in (*TRUE[:-1], *fronts.NUMBERS))
        assert all(isinstance(row[name], (int, float)) for name in (*plain.MEANINGS, "seconds", "network_evaluations"))
    for entry in found["comparison"]:
        assert all(entry["figures"][name] is None for name in (*TRUE, *fronts.NUMBERS))
        means = {
            name: np.mean([r[name] for r in found["rows"] if r["method"] == entry["method"]]) for name in plain.MEANINGS
        }
        assert {name: entry["figures"][name]["mean"] for name in means} == pytest.approx(means)


def test_the_table_and_the_pictures_do_without_truth(done):
    head, _, *lines = (done / "table.md").read_text().splitlines()
    columns = [name.strip() for name in head.split("|")[1:-1]]
    for line in lines[:2]:
        cells = dict(zip(columns, (cell.strip() for cell in line.split("|")[1:-1]), strict=True))
        of_truth = ("IoU", "unseen IoU", "IoU over sds", "name right", "colour right", "PSNR", "surface Chamfer")
        assert {cells[name] for name in of_truth} == {"-"}
        assert "-" not in {cells[name] for name in ("saturation", "loose", "high frequency", "silhouettes agree")}
    assert "truth of these prompts is not known" in lines[-1]
    with Image.open(done / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape[1] <= WIDEST + 2 * GAP + 2 * 192  # no column for the truth
    assert (pixels[-2 * 96 :, -2 * 192 :] < 250).any()


@pytest.mark.slow
def test_the_prior_is_asked_where_the_flag_says_so_and_nothing_is_run_again(copy, prior, capsys):
    splats = {path: path.stat().st_mtime_ns for path in copy.rglob("gaussians.ply")}
    assert sweep(copy, prior, "--prior-figures") == 0
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("gaussians.ply")} == splats
    assert ", fronts " in capsys.readouterr().out
    for row in results(copy)["rows"]:
        assert all(isinstance(row[name], (int, float)) for name in fronts.NUMBERS)
        assert len(row["views_seen"]) == 24
    head = (copy / "table.md").read_text().splitlines()[0]
    assert "| fronts | views agree | view margin | prompt fit |" in head
    files = {path: path.stat().st_mtime_ns for path in copy.rglob("evaluation.json")}
    assert sweep(copy, prior, "--prior-figures") == 0
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("evaluation.json")} == files
    other = next(iter(files))
    asked = json.loads(other.read_text())
    other.write_text(json.dumps({**asked, "judge": "sd15", "fronts": 7}))
    assert sweep(copy, prior, "--prior-figures") == 0
    assert json.loads(other.read_text()) == asked


@pytest.mark.slow
def test_an_evaluation_that_lacks_a_figure_is_made_again(copy, prior):
    path = next(copy.rglob("evaluation.json"))
    before = json.loads(path.read_text())
    path.write_text(json.dumps({"saturation": before["saturation"]}))
    assert sweep(copy, prior) == 0
    after = json.loads(path.read_text())
    assert {name: after[name] for name in plain.MEANINGS} == {name: before[name] for name in plain.MEANINGS}


@pytest.mark.slow
def test_a_failed_run_has_no_figure_at_all(tmp_path, prior, monkeypatch):
    def steps(self):
        raise Diverged("all steps had a gradient that is not finite")
        yield

    monkeypatch.setattr(Distiller, "__iter__", steps)
    assert sweep(tmp_path / "failed", prior) == 0
    for entry in results(tmp_path / "failed")["comparison"]:
        assert entry["failed"] == entry["runs"] == 2
        assert set(entry["figures"].values()) == {None}
    assert "| 2 |" in (tmp_path / "failed" / "table.md").read_text()


def test_only_the_prior_of_the_shapes_world_knows_the_truth(prior):
    open_, shapes = (
        SweepSettings(prompts=PROMPTS, methods=("sds",), seeds=(0,), prior=name) for name in (str(prior), "shapes")
    )
    assert (world_of_sweep(open_), world_of_sweep(shapes)) == (None, world_named("shapes"))
    assert [run.config.prompt for run in equal_steps(open_)] == list(PROMPTS)
    with pytest.raises(PromptError, match="corgi"):
        equal_steps(shapes)
