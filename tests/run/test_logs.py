"""A run is told to TensorBoard and W&B: the same figures as metrics.jsonl has, and pictures of its views."""

from __future__ import annotations

import json
import sys
from io import StringIO
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from gsdistill import generate
from gsdistill.cli.foresight import foresee
from gsdistill.core import extras
from gsdistill.core.errors import NotInstalled, Stopped, UserError
from gsdistill.run import logs
from gsdistill.run.config import resolve
from gsdistill.training import checkpoint
from gsdistill.training.listener import Listener, ListenerFailed

SMALL = {"prompt": "a red torus", "iterations": 4, "views": 2, "log_every": 2, "preview_every": 4, "snapshots": 0}
FIGURES = {"gaussians", "finite", "seconds", "loss", "timestep", "extent", "coverage", "saturation"}


def run(folder, *listeners, console=None, **more):
    given = {**SMALL, "prior": "shapes", "method": "sds", "output": str(folder), **more}
    return generate.run(resolve(given), console or Console(quiet=True), extras=False, listeners=listeners)


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Stop(Listener):
    """Somebody's own, which has seen enough after two steps."""

    def on_step(self, step, run):
        if step.number == 2:
            run.stop()


class Broken(Listener):
    """Somebody's own, with a mistake."""

    def on_step(self, step, run):
        if step.number == 3:
            raise ZeroDivisionError("of mine")


class Fake:
    """Stands in for wandb."""

    class Error(Exception):
        """Its own."""

    def __init__(self):
        self.began, self.told, self.finished, self.refusal, self.no_key = [], [], 0, None, None
        self.mode = "online"

    def setup(self):
        return SimpleNamespace(settings=SimpleNamespace(mode=self.mode))

    def login(self, verify):
        if self.no_key:
            raise self.no_key
        return not verify

    def init(self, **given):
        if self.refusal:
            raise self.refusal
        self.began.append(given)
        return SimpleNamespace(id="an-id", log=self.log, finish=self.finish)

    def log(self, told, step):
        self.told.append((step, told))

    def finish(self):
        self.finished += 1

    @staticmethod
    def Image(array):  # noqa: N802
        return np.asarray(array)


@pytest.fixture
def wandb(monkeypatch):
    fake = Fake()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setitem(extras.EXTRAS, "logs", {})
    return fake


@pytest.mark.slow
def test_weights_and_biases_are_told_the_records_and_the_views(wandb, tmp_path):
    folder = run(tmp_path / "run", logs=["wandb"])
    (began,) = wandb.began
    assert began["name"] == "a-red-torus/sds-seed0" and began["config"]["iterations"] == 4 and "id" not in began
    pictures = wandb.told[-1][1].pop("views")
    assert [image.shape for image in pictures] == [(64, 64, 3)] * 2 and wandb.finished == 1
    written = {record.pop("step"): record for record in records(folder)}
    assert dict(wandb.told) == written and list(written) == [1, 2, 4] and set(written[4]) >= FIGURES


@pytest.mark.slow
def test_weights_and_biases_go_on_with_the_run_that_was_stopped(wandb, tmp_path):
    with pytest.raises(Stopped):
        run(tmp_path / "run", Stop(), logs=["wandb"])
    assert wandb.finished == 1
    run(tmp_path / "run", logs=["wandb"], resume=True)
    assert (wandb.began[1]["id"], wandb.began[1]["resume"]) == ("an-id", "allow")
    assert [step for step, _ in wandb.told] == [1, 2, 4]
    run(tmp_path / "run", logs=["wandb"], overwrite=True)
    assert "id" not in wandb.began[2]


def test_what_weights_and_biases_refuse_is_one_line(wandb, tmp_path):
    wandb.refusal = Fake.Error("no key\nlogin first")
    with pytest.raises(UserError, match=r"^logs = wandb: no key login first; WANDB_MODE=offline needs no account$"):
        run(tmp_path / "run", logs=["wandb"])


def test_a_key_that_is_missing_is_told_before_the_model_is_loaded(wandb, tmp_path, monkeypatch):
    """Where nothing is sent, none is needed."""
    wandb.no_key = Fake.Error("No API key configured. Use `wandb login` to log in.")
    config = resolve({**SMALL, "prior": "shapes", "output": str(tmp_path / "run"), "logs": ["wandb"]})
    with monkeypatch.context() as patch:
        patch.setattr(generate, "load_prior", None)
        for perform in (lambda: generate.run(config, Console(quiet=True)), lambda: list(foresee(config))):
            with pytest.raises(UserError, match=r"^logs = wandb: No API key .* `wandb login` to log in; WANDB_MODE="):
                perform()
    assert not (tmp_path / "run").exists()
    for wandb.mode in ("offline", "dryrun", "disabled"):
        logs.check_logs(config)


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_one_that_is_not_installed_is_refused_before_the_work(name, tmp_path, monkeypatch):
    monkeypatch.setattr("gsdistill.core.extras.importlib.util.find_spec", lambda name: None)
    config = resolve({**SMALL, "prior": "shapes", "output": str(tmp_path / "run"), "logs": [name]})
    for perform in (lambda: generate.run(config, Console(quiet=True)), lambda: list(foresee(config))):
        with pytest.raises(NotInstalled, match=rf"logs {name} needs {name} \(the extra 'logs'\)"):
            perform()
    assert not (tmp_path / "run").exists()


def test_tensorboard_reads_the_records_and_the_views_back(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with pytest.raises(Stopped):
        run(tmp_path / "run", Stop(), logs=["tensorboard"])
    folder = run(tmp_path / "run", logs=["tensorboard"], resume=True)
    events = accumulator.EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    for name in FIGURES:
        found = {event.step: event.value for event in events.Scalars(name)}
        assert found == pytest.approx({record["step"]: float(record[name]) for record in records(folder)}, rel=1e-6)
    (picture,) = events.Images("views")
    assert (picture.step, picture.width, picture.height) == (4, 128, 64)


def test_figures_that_are_no_numbers_are_left_out():
    watch = SimpleNamespace(record={"step": 3, "loss": None, "finite": False, "gaussians": 7})
    assert logs._figures(watch) == {"finite": 0.0, "gaussians": 7.0}
    watch.record = None
    assert logs._figures(watch) == {}


# somebody's own listener of a whole run


@pytest.mark.slow
def test_ones_own_that_breaks_ends_the_run_with_all_that_was_made_kept(tmp_path):
    whole, told = run(tmp_path / "whole"), StringIO()
    with pytest.raises(ListenerFailed, match=r"Broken failed after step 3, ZeroDivisionError: of mine"):
        run(tmp_path / "run", Broken(), console=Console(file=told, width=500), checkpoint_every=1000)
    assert "all is kept up to step 3; go on with: gsdistill generate --config" in told.getvalue()
    again = run(tmp_path / "run", checkpoint_every=1000, resume=True)
    assert (again / "gaussians.ply").read_bytes() == (whole / "gaussians.ply").read_bytes()
    assert isinstance(ListenerFailed("x"), UserError)  # one line and exit code 2


def test_ones_own_ends_the_steps_as_a_signal_does(tmp_path):
    with pytest.raises(Stopped):
        run(tmp_path / "run", Stop())
    assert checkpoint.find(tmp_path / "run" / "checkpoints")[0].stem == "step-000002"
    assert (tmp_path / "run" / "gaussians.ply").exists() and not (tmp_path / "run" / "summary.json").exists()
    assert [record["step"] for record in records(tmp_path / "run")] == [1, 2]
