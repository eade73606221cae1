"""Tiny sweeps for real: what is done is kept, what stopped goes on, what failed is counted, mistakes are one line."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pages.folder import CHAIR
from PIL import Image, ImageFont
from rich.console import Console

from gsdistill import generate
from gsdistill.cli.main import execute
from gsdistill.core.errors import Stopped
from gsdistill.disk.write import write_text
from gsdistill.evaluation.references import truth_of_prompt
from gsdistill.evaluation.truth import evaluate
from gsdistill.models.catalogue import find_model
from gsdistill.run.prompts import read_prompts, sampled
from gsdistill.scene.read import read_splat
from gsdistill.settings.config import to_yaml
from gsdistill.sweep import run as sweep_run
from gsdistill.sweep.figure import wrapped
from gsdistill.sweep.plan import equal_evaluations, equal_steps, priced
from gsdistill.sweep.results import compare
from gsdistill.sweep.settings import SweepSettings
from gsdistill.sweep.table import markdown
from gsdistill.training.distiller import Distiller, Diverged
from gsdistill.worlds.shapes import Shapes

PROMPTS = ("a green sphere", "an orange cube")
FILES = {"config.yaml", "start.png", "gaussians.ply", "views.png", "metrics.jsonl", "summary.json", "evaluation.json"}
REPORT = {"results.json", "table.md", "figure.png", "sheet.png"}


def sweep(output: Path, *more: str) -> int:
    base = {"--methods": ("sds", "cds"), "--prompts": PROMPTS, "--seeds": ("0", "1"), "--iterations": ("3",)}
    words = [word for flag, values in base.items() if flag not in more for word in (flag, *values)]
    return execute(["sweep", *words, "--output", str(output), *more])


def settings(output: Path, **more) -> SweepSettings:
    given = {"methods": ("sds", "cds"), "prompts": PROMPTS, "seeds": (0, 1), "iterations": 3, "output": output}
    return SweepSettings(**{**given, **more})


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A finished sweep; it must not be changed."""
    output = tmp_path_factory.mktemp("sweep") / "done"
    assert sweep(output) == 0
    return output


@pytest.fixture
def copy(done, tmp_path) -> Path:
    return shutil.copytree(done, tmp_path / "copy")


def times(output: Path) -> dict[str, int]:
    """When each file of the runs was written."""
    files = [path for path in (output / "runs").rglob("*") if path.is_file()]
    return {str(path.relative_to(output)): path.stat().st_mtime_ns for path in files}


def changed(before: dict[str, int], output: Path) -> set[str]:
    """The files that are newer, each as run/file."""
    return {"/".join(Path(name).parts[1:]) for name, time in times(output).items() if before.get(name) != time}


def results(output: Path) -> dict:
    return json.loads((output / "results.json").read_text())


def test_a_sweep_of_one_run_leaves_it_and_a_report(tmp_path):
    assert sweep(tmp_path, "--methods", "sds", "--prompts", PROMPTS[0], "--seeds", "0", "--iterations", "1") == 0
    assert {path.name for path in tmp_path.iterdir()} == REPORT | {"runs"}
    (folder,) = (tmp_path / "runs" / "a-green-sphere").iterdir()
    assert folder.name == "sds-seed0-1steps" and {path.name for path in folder.iterdir()} == FILES
    assert results(tmp_path)["settled"] == 1


def test_reference_splats_of_all_prompts_are_a_line_of_the_table(tmp_path, monkeypatch):
    """Splats of the chair for two prompts of which it is one; a prompt without a splat leaves the line out."""
    chair, prompts = read_splat(CHAIR), ("a blue chair", "a red chair")
    monkeypatch.setattr(Shapes, "reference", lambda _, things: chair if things[0].color in known else None)
    known, given = ("blue", "red"), settings(tmp_path, prompts=prompts)
    comparison = compare(given)
    true = [evaluate(chair, truth_of_prompt(prompt, "shapes")) for prompt in prompts]
    assert comparison.reference is not None and comparison.lines[-1] is comparison.reference
    for name in ("iou", "psnr", "surface_chamfer"):
        assert comparison.reference.figures[name].mean == pytest.approx(np.mean([one[name] for one in true]))
    comparison.write()
    assert results(tmp_path)["reference"]["psnr"]["mean"] == comparison.reference.figures["psnr"].mean
    *_, line, _, legend = markdown(comparison).splitlines()
    assert (
        line.startswith("| `reference splats` | - | - |  |  |") and "1 of 2" in line and "Reference splats:" in legend
    )
    known = ("blue",)
    assert compare(given).reference is None and "Reference splats" not in markdown(compare(given))


@pytest.mark.slow
def test_leaves_whole_runs_and_a_report(done):
    assert {path.name for path in done.iterdir()} == REPORT | {"runs"}
    folders = [folder for prompt in (done / "runs").iterdir() for folder in prompt.iterdir()]
    names = {f"{method}-seed{seed}-{n}steps" for seed in (0, 1) for method, n in (("sds", 3), ("cds", 3), ("cds", 1))}
    assert len(folders) == 2 * len(names)
    assert {folder.name for folder in folders} == names
    assert all({path.name for path in folder.iterdir()} == FILES for folder in folders)


@pytest.mark.slow
def test_equal_evaluations_are_those_of_the_cheapest(done):
    """SDS spends 2 and CDS 4 a view: 3 steps of 4 views are 24 evaluations, 0.75 steps of 8; it is rounded to 1."""
    given = settings(done)
    assert {(one.method, one.config.iterations) for one in equal_steps(given)} == {("sds", 3), ("cds", 3)}
    assert {(one.method, one.config.iterations) for one in equal_evaluations(given)} == {("sds", 3), ("cds", 1)}
    entries = results(done)["comparison"]
    facts = [(e["method"], e["iterations"], e["equal_steps"], e["equal_evaluations"]) for e in entries]
    assert facts == [("sds", 3, True, True), ("cds", 3, True, False), ("cds", 1, False, True)]
    assert [entry["figures"]["network_evaluations"]["mean"] for entry in entries] == [24, 96, 32]


@pytest.mark.slow
def test_a_run_is_that_of_generate_bit_for_bit(done, tmp_path):
    words = ["--method", "cds", "--finish", "none", "--seed", "1", "--iterations", "3", "--output"]
    assert execute(["generate", "--prompt", PROMPTS[1], *words, str(tmp_path / "alone")]) == 0
    own = (done / "runs" / "an-orange-cube" / "cds-seed1-3steps" / "gaussians.ply").read_bytes()
    assert own == (tmp_path / "alone" / "gaussians.ply").read_bytes()


@pytest.mark.slow
def test_the_figures_are_means_of_the_rows(done):
    found = results(done)
    assert found["settled"] == found["planned"] == len(found["rows"]) == 12
    for entry in found["comparison"]:
        rows = [r for r in found["rows"] if (r["method"], r["iterations"]) == (entry["method"], entry["iterations"])]
        assert len(rows) == entry["runs"] == 4
        names = ("iou", "unseen_iou", "psnr", "surface_chamfer", "centre_chamfer", "saturation", "seconds")
        for name in (*names, "colour_error", "name_right", "colour_right"):
            interval = entry["figures"][name]
            assert interval["mean"] == pytest.approx(np.mean([row[name] for row in rows]), abs=1e-6)
            assert interval["low"] - 1e-9 <= interval["mean"] <= interval["high"] + 1e-9
        assert entry["figures"]["rms_between_seeds"]["mean"] > 0
        assert entry["figures"]["frechet_between_seeds"]["mean"] > 0
    by_place = {(r["method"], r["iterations"], r["prompt"], r["seed"]): r["iou"] for r in found["rows"]}
    over = [by_place["cds", 3, p, s] - by_place["sds", 3, p, s] for p in PROMPTS for s in (0, 1)]
    assert found["comparison"][1]["figures"]["iou_over_first"]["mean"] == pytest.approx(np.mean(over))
    assert found["comparison"][0]["figures"]["iou_over_first"] is None


def cells(path: Path, columns: int) -> np.ndarray:
    """The pictures of a sheet, pair by pair, without the labels above and to the left."""
    with Image.open(path) as sheet:
        return np.asarray(sheet)[-len(PROMPTS) * 96 :, -columns * 192 :]


@pytest.mark.slow
def test_the_pictures_are_pictures(done):
    truth = cells(done / "sheet.png", 4)[:96, :192].astype(float)
    assert (truth[..., 1] > truth[..., 0] + 50).mean() > 0.1  # green where the sphere is
    with Image.open(done / "figure.png") as figure:
        assert min(figure.size) > 200
    table = (done / "table.md").read_text().splitlines()
    assert [line.count("|") for line in table[:5]] == [table[0].count("|")] * 5
    assert table[2].startswith("| `sds` | 3 | 24 | x | x | 0.")
    assert "Unfinished" not in table[-1]


@pytest.mark.parametrize("width", [60, 120, 400])
@pytest.mark.parametrize("text", ["a red torus", "a corgi that rides through the desert", "x" * 90, "Ü " * 40])
def test_a_label_is_whole_and_within_its_column(text, width):
    font = ImageFont.load_default(13)
    label = wrapped(text, font, width)
    assert "".join(label.split()) == "".join(text.split())
    assert all(font.getlength(line) <= width for line in label.split("\n"))


@pytest.mark.slow
def test_what_is_done_is_not_done_again(copy, capsys):
    before = times(copy)
    assert sweep(copy) == 0
    assert changed(before, copy) == set()
    assert "[" not in capsys.readouterr().out.partition("figure")[0]


@pytest.mark.slow
def test_what_is_missing_is_made_up(copy, done):
    folder = copy / "runs" / "a-green-sphere" / "sds-seed0-3steps"
    (folder / "evaluation.json").unlink()
    shutil.rmtree(copy / "runs" / "an-orange-cube" / "cds-seed1-1steps")
    before = times(copy)
    assert sweep(copy) == 0
    runs = {name.rpartition("/")[0] for name in changed(before, copy)}
    assert runs == {"a-green-sphere/sds-seed0-3steps", "an-orange-cube/cds-seed1-1steps"}
    assert {name for name in changed(before, copy) if "sphere" in name} == {
        "a-green-sphere/sds-seed0-3steps/evaluation.json"
    }
    again = [output / "runs" / "a-green-sphere" / "sds-seed0-3steps" / "evaluation.json" for output in (done, copy)]
    assert again[0].read_text() == again[1].read_text()


@pytest.mark.slow
def test_figures_of_an_earlier_version_are_compared_as_far_as_they_go(copy):
    for path in (copy / "runs").rglob("evaluation.json"):
        kept = json.loads(path.read_text())
        kept["chamfer"] = kept.pop("centre_chamfer")
        later = ("psnr", "picture_error", "soft_iou", "surface_", "truth_to_surface", "unseen_")
        path.write_text(json.dumps({name: value for name, value in kept.items() if not name.startswith(later)}))
    assert sweep(copy, "--no-run") == 0
    for entry in results(copy)["comparison"]:
        assert entry["runs"] == 4 and entry["figures"]["unseen_iou"] is entry["figures"]["surface_chamfer"] is None
        assert entry["figures"]["centre_chamfer"]["mean"] > 0 and entry["figures"]["iou"]["mean"] > 0


@pytest.mark.slow
def test_a_changed_setting_is_run_again_and_no_other(copy, tmp_path):
    (tmp_path / "mine.yaml").write_text("method: {name: sds, guidance_scale: 3}\n")
    before = times(copy)
    assert sweep(copy, "--configs", f"sds={tmp_path / 'mine.yaml'}") == 0
    runs = {name.split("/")[1] for name in changed(before, copy)}
    assert runs == {"sds-seed0-3steps", "sds-seed1-3steps"}
    config = (copy / "runs" / "an-orange-cube" / "sds-seed1-3steps" / "config.yaml").read_text()
    assert "guidance_scale: 3" in config


@pytest.mark.slow
def test_runs_of_other_settings_are_not_shown(copy, tmp_path):
    (tmp_path / "mine.yaml").write_text("method: {name: sds, guidance_scale: 3}\n")
    assert sweep(copy, "--configs", f"sds={tmp_path / 'mine.yaml'}", "--no-run") == 0
    sds, cds = results(copy)["comparison"]
    assert (sds["method"], sds["runs"], sds["figures"]["iou"]) == ("sds", 0, None)
    assert (cds["method"], cds["runs"]) == ("cds", 4)
    pixels = cells(copy / "sheet.png", 3)
    assert (pixels[:, 192 : 2 * 192] == 255).all()
    assert not (pixels[:, 2 * 192 :] == 255).all()


@pytest.mark.slow
def test_only_evaluations_runs_only_what_it_needs(tmp_path):
    assert sweep(tmp_path, "--equal", "evaluations", "--seeds", "0") == 0
    names = {f"{path.parent.name}/{path.name}" for path in (tmp_path / "runs").glob("*/*")}
    expected = {"a-green-sphere/sds-seed0-1steps"}  # says what a step of SDS costs; one of CDS is among the runs
    for prompt in ("a-green-sphere", "an-orange-cube"):
        expected |= {f"{prompt}/sds-seed0-3steps", f"{prompt}/cds-seed0-1steps"}
    assert names == expected
    assert [(e["method"], e["iterations"]) for e in results(tmp_path)["comparison"]] == [("sds", 3), ("cds", 1)]


class Asked:
    """Stands in for generate's Interrupt: Ctrl-C was pressed during the first step."""

    asked, patient, stopped = True, True, Stopped(signal.SIGINT)

    def __init__(self, console: Console) -> None: ...

    def __enter__(self) -> Asked:
        return self

    def __exit__(self, *error: object) -> None: ...


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_from_the_checkpoint_to_the_same_end(done, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(generate, "Interrupt", Asked)
        assert sweep(tmp_path) == 130
    assert "The same command goes on from here" in capsys.readouterr().out
    (stopped,) = (tmp_path / "runs" / "a-green-sphere").glob("*steps")
    assert (stopped / "checkpoints").exists()
    assert not (stopped / "summary.json").exists()
    resumed = []

    def spy(config, *others, **more):
        resumed.append(config.resume)
        return generate.run(config, *others, **more)

    monkeypatch.setattr(sweep_run, "run", spy)
    assert sweep(tmp_path) == 0
    assert resumed == [True] + [False] * 11
    ends = [output / "runs" / "a-green-sphere" / stopped.name / "gaussians.ply" for output in (done, tmp_path)]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    assert not (stopped / "checkpoints").exists()


def diverging(method: str):
    """Return the loop, in which one method diverges."""
    real = Distiller.__iter__

    def steps(self):
        if type(self.method).__name__ == method:
            raise Diverged("51 of 60 steps had a gradient that is not finite")
        yield from real(self)

    return steps


@pytest.mark.slow
def test_a_failed_run_is_counted_and_not_tried_again(tmp_path, monkeypatch, capsys):
    words = ("--seeds", "0", "--equal", "steps")
    with monkeypatch.context() as patch:
        patch.setattr(Distiller, "__iter__", diverging("CDS"))
        assert sweep(tmp_path, *words) == 0
    assert "failed: 51 of 60 steps" in capsys.readouterr().out
    sds, cds = results(tmp_path)["comparison"]
    assert (sds["failed"], cds["failed"], cds["runs"]) == (0, 2, 2)
    means = {name: found and found["mean"] for name, found in cds["figures"].items()}
    assert (means["iou"], means["name_right"], means["surface_chamfer"], means["colour_error"]) == (0.0, 0.0, 2.0, 1.0)
    assert means["saturation"] is means["seconds"] is means["network_evaluations"] is None
    rows = (tmp_path / "table.md").read_text().splitlines()
    assert rows[0].split("|")[-2].strip() == "failed"
    assert rows[3].split("|")[-2].strip() == "2"
    before = times(tmp_path)
    assert sweep(tmp_path, *words) == 0
    assert changed(before, tmp_path) == set()
    (tmp_path / "milder.yaml").write_text("method: {name: cds, guidance_scale: 3}\n")
    assert sweep(tmp_path, *words, "--configs", f"cds={tmp_path / 'milder.yaml'}") == 0
    assert [entry["failed"] for entry in results(tmp_path)["comparison"]] == [0, 0]


@pytest.mark.slow
def test_equal_evaluations_wait_for_the_first_run_of_every_method(copy):
    """Another process may have it in hand, and it may be the cheapest."""
    runs = [one for one in equal_steps(settings(copy)) if one.method == "sds"]
    for one in runs:
        (one.folder / "summary.json").unlink()
    assert equal_evaluations(settings(copy)) == []
    (runs[0].folder / "failure.json").write_text('{"error": "diverged"}')
    assert equal_evaluations(settings(copy)) == []


@pytest.mark.slow
def test_equal_evaluations_go_without_a_method_that_always_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(Distiller, "__iter__", diverging("CDS"))
    assert sweep(tmp_path, "--seeds", "0") == 0
    facts = [(e["method"], e["iterations"], e["equal_evaluations"]) for e in results(tmp_path)["comparison"]]
    assert facts == [("sds", 3, True), ("cds", 3, False)]


@pytest.mark.slow
def test_a_run_of_another_process_is_left_to_it(copy):
    folder = copy / "runs" / "a-green-sphere" / "sds-seed0-3steps"
    shutil.rmtree(folder)
    with folder.with_name(f"{folder.name}.lock").open("w") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        assert sweep(copy) == 0
        assert not folder.exists()
        assert results(copy)["settled"] == 11
        assert "Unfinished: 11 of 12 runs are done." in (copy / "table.md").read_text()
    assert sweep(copy) == 0
    assert results(copy)["settled"] == 12
    assert not list(copy.rglob("*.lock"))


@pytest.mark.slow
def test_no_run_only_compares(tmp_path):
    assert sweep(tmp_path, "--no-run") == 0
    assert {path.name for path in tmp_path.iterdir()} == REPORT
    assert results(tmp_path)["settled"] == 0


def test_prompts_come_from_a_file_too(tmp_path):
    (tmp_path / "prompts.txt").write_text("a red cube\n\n  a blue ring \n")
    given = settings(tmp_path, prompt_file=str(tmp_path / "prompts.txt"))
    assert given.all_prompts == (*PROMPTS, "a red cube", "a blue ring")


def test_a_sweep_takes_a_list_by_name_and_a_sample_of_it(tmp_path):
    prompts = read_prompts("magic3d-15")
    assert settings(tmp_path, prompts=(), prompt_file="magic3d-15").all_prompts == prompts
    given = settings(tmp_path, prompts=("a cat",), prompt_file="magic3d-15", sample=4, sample_seed=7)
    assert given.all_prompts == ("a cat", *sampled(prompts, 4, 7))


def test_the_price_of_a_step_is_asked_for_of_the_first_prompt_of_a_sample(tmp_path):
    (tmp_path / "prompts.txt").write_text("a red cube\na blue ring\na green torus\n")
    file = str(tmp_path / "prompts.txt")
    given = settings(tmp_path, prompts=(), prompt_file=file, sample=2, equal="evaluations")
    assert {run.config.prompt for run in priced(given)} == {given.all_prompts[0]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--methods sdss", "unknown method 'sdss'. Did you mean 'sds'?"),
        ("--methods", "no methods; name at least one"),
        ("--methods sds sds", "methods: 'sds' is given 2 times"),
        ("--prompts", "no prompts; name at least one"),
        ("--prompts zebra", "unknown word 'zebra'"),
        ("--prompts Red-cube red-cube", "prompts: 'red-cube' is given 2 times"),
        ("--prompt-file nowhere.txt", "nowhere.txt: cannot be read"),
        ("--prompt-file magic3d-51", "unknown list of prompts 'magic3d-51'. Did you mean 'magic3d-15'?"),
        ("--prompt-file magic3d-15 --sample 16", "sample = 16: magic3d-15 holds 15 prompts"),
        ("--prompt-file magic3d-15 --sample 0", "sample = 0 is out of range"),
        ("--prompts x --sample 1", "sample = 1 is for the prompts of --prompt-file, which is not given"),
        ("--seeds -1", "seeds[0] = -1 is out of range"),
        ("--seeds 1 1", "seeds: '1' is given 2 times"),
        ("--iterations 0", "iterations = 0 is out of range"),
        ("--finish sdss", "unknown finish 'sdss'. Did you mean 'sds'?"),
        ("--finish sds --finish-iterations 0", "finish_iterations = 0 is out of range"),
        ("--equal speed", "equal = 'speed' is not a choice"),
        ("--configs sds", "configs: 'sds' is not method=config"),
        ("--configs sdss=a.yaml", "unknown method 'sdss'"),
        ("--configs sds=shapes-cds", "shapes-cds is not a config of the method sds"),
        ("--configs sds=nothing", "unknown config 'nothing'"),
        ("--configs sds=a.yaml sds=b.yaml", "configs: 'sds' is given 2 times"),
        ("--methods sds --configs cds=nothing", "configs: 'cds=nothing' is for none of the methods sds"),
        ("--prior nothing", "prior = 'nothing' is neither a known prior nor a folder"),
        ("--method sds", "unknown flag '--method'. Did you mean '--methods'?"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(words, message, tmp_path, capsys):
    assert sweep(tmp_path / "new", *words.split()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.match("error: ", lines[0]) and message in lines[0]
    assert not (tmp_path / "new").exists()


def test_a_run_is_told_by_what_its_paths_lead_to(tmp_path, monkeypatch):
    shutil.copytree(find_model("shapes")[0], tmp_path / "models" / "shapes")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    run = equal_steps(settings(Path("out"), prior="models/shapes"))[0]
    for prior in ("models/shapes", run.config.prior):  # as an earlier version wrote it, and as it is now
        write_text(run.folder / "config.yaml", to_yaml(replace(run.config, prior=prior)))
        assert run.begun
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert equal_steps(settings(Path("../out"), prior="../models/shapes"))[0].begun
    assert not equal_steps(settings(Path("../out")))[0].begun


@pytest.mark.slow
def test_a_run_with_the_finish_goes_on_from_the_method_alone_and_is_that_of_generate(tmp_path):
    """ASD's step costs three of SDS's. The run with the finish makes the method's steps no second time."""
    words = ("--methods", "sds", "asd", "--prompts", PROMPTS[0], "--seeds", "1", "--iterations", "6")
    assert sweep(tmp_path, *words, "--equal", "evaluations", "--finish", "sds", "--finish-iterations", "3") == 0
    runs = {path.name: path for path in (tmp_path / "runs" / "a-green-sphere").iterdir()}
    alone, both = runs["asd-seed1-2steps"], runs["asd-sds-seed1-5steps"]
    prices = {"sds-seed1-1steps", "asd-seed1-1steps"}
    assert set(runs) == {"sds-seed1-6steps", "sds-sds-seed1-9steps", alone.name, both.name} | prices
    steps = [json.loads(line)["step"] for line in (both / "metrics.jsonl").read_text().splitlines()]
    assert min(steps) > 2, "the steps of the method were made twice"
    config = tmp_path / "own.yaml"
    config.write_text((both / "config.yaml").read_text())
    assert execute(["generate", "--config", str(config), "--output", str(tmp_path / "whole")]) == 0
    assert (both / "gaussians.ply").read_bytes() == (tmp_path / "whole" / "gaussians.ply").read_bytes()
    assert (both / "gaussians.ply").read_bytes() != (alone / "gaussians.ply").read_bytes()
    entries = results(tmp_path)["comparison"]
    assert [(e["method"], e["iterations"], e["finish_steps"]) for e in entries] == [
        ("sds", 6, 0), ("sds", 9, 3), ("asd", 2, 0), ("asd", 5, 3),
    ]  # fmt: skip
    over = [entry["figures"]["iou_over_first"] for entry in entries]
    iou = [entry["figures"]["iou"]["mean"] for entry in entries]
    assert over[0] is over[1] is None
    assert [over[2]["mean"], over[3]["mean"]] == pytest.approx([iou[2] - iou[0], iou[3] - iou[1]])
    table = (tmp_path / "table.md").read_text()
    assert "| `asd` | 2 + 3 |" in table and "Steps after a + are those of the finish sds," in table


@pytest.mark.slow
def test_what_would_go_on_from_a_failed_run_has_failed_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(Distiller, "__iter__", diverging("CDS"))
    assert sweep(tmp_path, "--seeds", "0", "--equal", "steps", "--finish", "sds", "--finish-iterations", "2") == 0
    facts = [(e["method"], e["finish_steps"], e["runs"], e["failed"]) for e in results(tmp_path)["comparison"]]
    assert facts == [("sds", 0, 2, 0), ("sds", 2, 2, 0), ("cds", 0, 2, 2), ("cds", 2, 2, 2)]
    assert not list((tmp_path / "runs").glob("*/cds-sds-*"))
