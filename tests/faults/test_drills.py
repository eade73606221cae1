"""The judge of the drills sees what it is there to see: cut files, drafts, differences, and where a run stood."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import drills, judge
from PIL import Image
from safetensors.torch import save_file

from gsdistill.export.pictures import write_turntable
from gsdistill.scene.read import read_splat

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with a file of each kind that a run leaves."""
    folder = tmp_path_factory.mktemp("judge") / "run"
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "data" / "chair.ply", folder / "gaussians.ply")
    write_turntable(read_splat(folder / "gaussians.ply"), folder / "turntable.mp4", size=16)
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(folder / "views.png")
    counts = {"gaussians": 670, "iterations": 2, "network_evaluations": 4, "skipped_steps": 0}
    (folder / "summary.json").write_text(json.dumps({**counts, "seconds": 1.5}))
    records = ({"step": step, "loss": 0.5, "seconds": step / 2} for step in (1, 2))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "config.yaml").write_text("prompt: a red torus\nregularizers:\n  opacity: 0.0\n")
    (folder / "report.html").write_text(f"<!doctype html><html>{'x' * 99}</html>\n")
    save_file({"x": torch.ones(9)}, folder / "checkpoints" / "step-000002.safetensors", metadata={"gsdistill": "{}"})
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_whole_files_are_whole_and_each_cut_one_is_found(run):
    assert judge.damaged(run) == [] and list(judge.files(run)) == names(run) and len(names(run)) == 8
    for name in names(run):
        data = (run / name).read_bytes()
        for share in (0.0, 0.4, 0.98):
            (run / name).write_bytes(data[: int(share * len(data))])
            found = judge.damaged(run)
            assert (name == "metrics.jsonl" and not share) or [line.split(":")[0] for line in found] == [name]
        (run / name).write_bytes(data)


def test_a_draft_is_no_file_but_is_told(run):
    (run / ".tmp-12345678-views.png").write_bytes(b"half")
    (run / ".lock").touch()
    assert judge.damaged(run) == [] and judge.drafts(run) == [".tmp-12345678-views.png"]


def test_differences_are_of_all_but_places_and_times(finished, run):
    changes = {"summary.json": ("1.5", "99.5"), "config.yaml": ("torus", "cube"), "metrics.jsonl": ('s": 1.0', 's": 9')}
    for name, (old, new) in changes.items():
        text = (run / name).read_text()
        assert old in text
        (run / name).write_text(text.replace(old, new))
    assert judge.differences(run, finished) == []
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text().replace("0.5", "0.25"))
    (run / "summary.json").write_text((run / "summary.json").read_text().replace("670", "671"))
    data = (run / "gaussians.ply").read_bytes()
    (run / "gaussians.ply").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    (run / "views.png").unlink()
    assert judge.differences(run, finished) == [
        "views.png is in one of them", "gaussians.ply differs", "metrics.jsonl differs", "summary.json differs",
    ]  # fmt: skip


def test_where_a_run_stood(run, tmp_path):
    phases = []
    for steps in (
        ("summary.json", "gaussians.ply", "report.html", "views.png", "turntable.mp4"),
        ("checkpoints/step-000002.safetensors",),
        tuple(names(run)),
    ):
        phases.append(judge.phase(run))
        for name in steps:
            (run / name).unlink(missing_ok=True)
    assert [*phases, judge.phase(run), judge.phase(tmp_path / "none")] == [
        "writing the report", "between two steps", "before the first checkpoint",
        "before the run has its folder", "before the run has its folder",
    ]  # fmt: skip
    (run / "checkpoints" / ".tmp-1-step-000001.safetensors").touch()
    assert judge.phase(run) == "writing a checkpoint"


def test_the_counts():
    kill = drills.Kill("sds", False, drills.Blow(0.5), 0.5, judge.PHASES[2], (".tmp-1-a",))
    outcomes = [drills.Outcome((kill, kill), 1, ()), drills.Outcome((), 0, ("views.png differs",))]
    found = drills.figures(outcomes)
    assert (found["kills"], found["runs"], found["begun_anew"], found["while_a_file_was_written"]) == (2, 2, 1, 2)
    assert found["phases"][judge.PHASES[2]] == 2 and sum(found["phases"].values()) == 2
    assert found["wrong"] == ["views.png differs"] and found["methods"] == {"sds": 2}


def test_the_moments_are_those_of_the_seed_and_fill_the_life():
    first, again, other = (drills.moments(number, 10.0, 0, most=40) for number in (1, 1, 2))
    assert first == again != other and tuple(first[40:]) == drills.REST
    after = sorted(blow.after for blow in first[:40])
    assert 0 <= after[0] < 2 and 8 < after[-1] <= 10 and {blow.aimed for blow in first[:40]} == {False, True}
