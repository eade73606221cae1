"""Methods of one's own in a sweep: beside ours, two files with a class of one name, from every working directory."""

from __future__ import annotations

import json

import labs
import pytest

from gsdistill.cli.main import execute
from gsdistill.core.errors import ConfigError
from gsdistill.settings.yaml import load_yaml
from gsdistill.sweep.plan import equal_steps
from gsdistill.sweep.settings import SweepSettings

SOURCE = """
from dataclasses import dataclass

from gsdistill import Distillation, Ramp
from gsdistill.core.ranges import bounded


@dataclass(frozen=True)
class Mine(Distillation):
    guidance_scale: float = bounded(20.0, low=1)  # omega

    def gradient(self, moment, state):
        t, eps = moment.draw_timesteps(Ramp(0.02, 0.02), Ramp(0.5, 0.5)), moment.draw_noise()
        alpha, sigma = moment.schedule.at(t, moment.x0)
        noise = moment.prior.noise(alpha * moment.x0 + sigma * eps, t, moment.condition)
        return moment.answer(noise.guided(self.guidance_scale) - eps, t), state
"""
FOLDERS = {"mine-mine-seed0-2steps", "mine-two-mine-seed0-2steps", "sds-seed0-2steps"}


@pytest.fixture
def lab(tmp_path):
    """A folder with two files of a method, in which we are."""
    with labs.lab(tmp_path, mine=SOURCE, mine_two=SOURCE.replace("20.0", "90.0")) as folder:
        yield folder


def words(home: str, output: str) -> list[str]:
    methods = (f"{home}mine.py:Mine", "sds", f"{home}mine_two.py:Mine")
    more = ("--prompts", "a red torus", "--seeds", "0", "--iterations", "2", "--equal", "steps", "--output", output)
    return ["sweep", "--methods", *methods, *more, "--configs", f"{home}mine.py:Mine={home}own.yaml"]


@pytest.mark.slow
def test_they_are_run_and_compared_and_kept(lab, monkeypatch, capsys):
    (lab / "own.yaml").write_text(f"method: {{name: {lab / 'mine.py'}:Mine, guidance_scale: 33}}\n")
    assert execute(words("./", "out")) == 0
    runs = lab / "out" / "runs" / "a-red-torus"
    assert {path.name for path in runs.iterdir() if path.is_dir()} == FOLDERS
    kept = {folder: load_yaml(runs / folder / "config.yaml")["method"] for folder in FOLDERS - {"sds-seed0-2steps"}}
    assert kept == {
        "mine-mine-seed0-2steps": {"name": f"{lab / 'mine.py'}:Mine", "clip": 0.0, "guidance_scale": 33.0},
        "mine-two-mine-seed0-2steps": {"name": f"{lab / 'mine_two.py'}:Mine", "clip": 0.0, "guidance_scale": 90.0},
    }
    table = (lab / "out" / "table.md").read_text()
    assert "| `mine:Mine` | 2 |" in table and "| `mine_two:Mine` | 2 |" in table and "IoU over mine:Mine" in table
    assert [entry["runs"] for entry in json.loads((lab / "out" / "results.json").read_text())["comparison"]] == [
        1,
        1,
        1,
    ]
    assert "[1/3] a red torus, mine:Mine, seed 0" in capsys.readouterr().out
    (lab / "else").mkdir()
    monkeypatch.chdir(lab / "else")
    assert execute(words("../", "../out")) == 0
    assert "[" not in capsys.readouterr().out.partition("figure")[0]  # nothing was left to do


def test_a_folder_of_a_stranger_runs_nothing(lab):
    """What it names is not what was asked for, and is not loaded to see that."""
    (run,) = equal_steps(SweepSettings(("sds",), ("a red torus",), seeds=(0,), output=lab))
    run.folder.mkdir(parents=True)
    (lab / "mine_trap.py").write_text("open('trace', 'w')\n" + SOURCE)
    for name in ("method", "init", "cameras", "densify", "prior"):
        settings = f"prompt: a red torus\n{name}: {lab / 'mine_trap.py'}:Mine\n"
        (run.folder / "config.yaml").write_text(settings)
        assert not run.begun
    assert not (lab / "trace").exists()


@pytest.mark.parametrize(
    ("methods", "told"),
    [
        (("./mine.py:Mine", "mine.py:Mine"), "methods: 'mine-mine' is given 2 times; name each once"),
        (("sds", "./mine.py:Mien"), "there is no 'Mien' in"),
        (("mine.py:Mine,sds",), "names no class; write module:Class or file.py:Class"),
        (("sdss",), "unknown method 'sdss'. Did you mean 'sds'? Available: asd, "),
    ],
)
def test_a_mistake_is_one_sentence(methods, told, lab):
    with pytest.raises(ConfigError) as caught:
        SweepSettings(methods, ("a red torus",))
    assert told in str(caught.value)
