"""--dry-run refuses what the run refuses, in the same words, and says what it takes; it writes and fetches nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from gsdistill import generate
from gsdistill.bench.flops import Ceiling
from gsdistill.cli import foresight
from gsdistill.cli.foresight import foresee
from gsdistill.core.errors import UserError
from gsdistill.models.catalogue import cards
from gsdistill.models.inventory import Share
from gsdistill.run.config import RunConfig, resolve
from gsdistill.training.distiller import Distiller


def config(**given) -> RunConfig:
    base = {"prompt": "a red torus", "prior": "shapes", "method": "sds", "device": "cpu", "output": "run"}
    return resolve({**base, "resolution": 16, "views": 1, "init": {"name": "ball", "count": 50}, **given})


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_small_prior_is_tried_and_nothing_is_written(here):
    time, memory, download = foresee(config(iterations=1000))
    step = float(re.search(r"1000 steps of (\d+) ms", time)[1])
    assert step > 0
    assert memory.startswith("memory: about ")
    assert download == "download: none, all of the prior is on this machine"
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": "a red corgi"}, "unknown word 'corgi'"),
        ({"cameras": {"elevation": [-80, 60]}}, "leaves what the prior shapes was trained on"),
        ({"views": 3, "cameras": {"group": 2}}, "is no multiple of the 2 views"),
        ({"output": "taken"}, "is not empty"),
        ({"resume": True}, "holds no checkpoint to resume"),
        ({"prior": "nowhere/at-all"}, "cannot get nowhere/at-all"),
        ({"export": {"formats": ["plx"]}}, "plx"),
        ({"init": {"name": "ply", "path": "none.ply"}}, "none.ply"),
    ],
)
def test_it_refuses_what_the_run_refuses_in_the_same_words(given, message, here, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (here / "taken").mkdir()
    (here / "taken" / "notes.txt").write_text("mine")
    told = []
    for perform in (lambda run: list(foresee(run)), lambda run: generate.run(run, Console(quiet=True))):
        with pytest.raises(UserError) as caught:
            perform(config(**given))
        told.append(str(caught.value))
    assert told[0] == told[1]
    assert message in told[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prior": "sd15", "init": {"name": "ply", "path": "none.ply"}}, "none.ply"),
        ({"prior": "sd15", "views": 3, "cameras": {"group": 2}}, "views = 3 is no multiple of the 2 views"),
        ({"prior": "mvdream", "views": 3}, "views = 3 is no multiple of the 4 views"),
        ({"prior": "mvdream", "views": 4, "cameras": {"group": 2}}, "the prior mvdream sees 4 views together"),
    ],
)
def test_what_needs_no_weights_is_refused_before_any_are_loaded(given, message, monkeypatch):
    monkeypatch.setattr(foresight, "find_shares", None)
    monkeypatch.setattr(generate, "load_prior", None)
    for perform in (lambda run: list(foresee(run)), lambda run: generate.run(run, Console(quiet=True))):
        with pytest.raises(UserError, match=message):
            perform(config(**given))


@pytest.fixture
def away(monkeypatch):
    """A prior of the hub of which a part is here; nothing is asked of the network."""
    files = (("unet/a.safetensors", 3_000_000_000), ("vae/b.safetensors", 100_000_000))
    monkeypatch.setattr(foresight, "find_shares", lambda name, half: [Share(name, ("a/b",), files=files)])
    monkeypatch.setattr(Share, "here", lambda self: {"vae/b.safetensors": 100_000_000})
    monkeypatch.setattr(foresight, "matmul_ceiling", lambda device, dtype: Ceiling(3e12, 512, "float32"))
    monkeypatch.setattr(foresight, "located", None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # with it a model must be here


def test_a_large_prior_is_counted_by_its_card(away):
    time, memory, download = foresee(config(prior="sd15", views=8, iterations=60))
    network, encoder = cards()["sd15"].step_tflop
    minutes = 60 * 2 * (network + encoder) / 60  # twice the views, at a third of 3 TFLOP/s, in seconds; over 60
    assert f"about {minutes:.0f} minutes for 60 steps" in time
    assert f"{cards()['sd15'].gpu_gb:g} GB" in memory
    assert download.startswith("download: 3.0 GB, once")


@pytest.mark.slow
def test_a_method_with_more_evaluations_takes_longer(away):
    sds, cds = (foresight._evaluations(config(method=method)) for method in ("sds", "cds"))
    assert (sds, cds) == (2, 4)


def test_what_is_not_known_is_said(away, monkeypatch):
    unknown, _ = foresee(config(prior="a/b"))
    assert unknown.startswith("time and memory: not known for a/b")
    share = Share("sd15", ("a/b",), reason="the hub cannot be reached")
    monkeypatch.setattr(foresight, "find_shares", lambda name, half: [share])
    assert list(foresee(config(prior="sd15")))[2] == (
        "download: up to 4.2 GB in float32, by the card; the hub cannot be reached"
    )


def test_a_finished_run_is_told(here, monkeypatch):
    folder = type("Folder", (), {"path": Path("run")})()
    monkeypatch.setattr(foresight, "checked_folder", lambda config: (folder, None))
    assert list(foresee(replace(config(), resume=True))) == ["the run in run is finished; nothing is left to do"]


@pytest.mark.slow
def test_of_an_interrupted_run_the_steps_that_are_left_count_and_other_settings_are_refused(here, monkeypatch):
    real = Distiller.__iter__
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(Distiller, "__iter__", lambda self: (1 / (2 - one.number) and one for one in real(self)))
        generate.run(config(iterations=6, checkpoint_every=0), Console(quiet=True))
    kept = {path: path.stat().st_mtime_ns for path in (here / "run").rglob("*")}
    time, *_ = foresee(config(iterations=6, checkpoint_every=0, resume=True))
    assert " for 4 steps of " in time
    for other, message in (({"seed": 1}, "cannot change seed = 1"), ({"iterations": 8}, "--accept-changes goes on")):
        told = []
        for perform in (lambda run: list(foresee(run)), lambda run: generate.run(run, Console(quiet=True))):
            with pytest.raises(UserError, match=message) as caught:
                perform(config(**{"iterations": 6, "checkpoint_every": 0, "resume": True, **other}))
            told.append(str(caught.value))
        assert told[0] == told[1]
    assert kept == {path: path.stat().st_mtime_ns for path in (here / "run").rglob("*")}


@pytest.mark.parametrize(("seconds", "text"), [(7, "7 s"), (600, "10 minutes"), (36_000, "10 hours")])
def test_durations(seconds, text):
    assert foresight._duration(seconds) == text
