"""The processors are left to others while threads wait, and --threads holds for every command that computes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
import torch

from gsdistill.cli.main import PACKAGE, execute
from gsdistill.core.threads import SOON, WAITING, Threads, Turn, sleep_soon
from gsdistill.settings.registry import load, names


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    """An environment that does not say how threads wait; what a test makes it say goes."""
    for name in WAITING:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def said() -> dict[str, str]:
    return {name: os.environ[name] for name in WAITING if name in os.environ}


def test_threads_sleep_where_the_environment_does_not_say():
    sleep_soon()
    assert said() == SOON


@pytest.mark.parametrize("name", WAITING)
def test_what_a_user_has_set_stays(name, monkeypatch):
    monkeypatch.setenv(name, "3")
    sleep_soon()
    assert said() == {name: "3"}


def test_the_command_tells_openmp_before_torch_is_imported():
    code = (
        "import os, sys, builtins\n"
        "from gsdistill import __main__ as command\n"
        "real = builtins.__import__\n"
        "def watched(name, *rest, **more):\n"
        "    if name == 'torch':\n"
        "        os.write(1, os.environ.get('GOMP_SPINCOUNT', 'nothing said').encode())\n"
        "        os._exit(0)\n"
        "    return real(name, *rest, **more)\n"
        "builtins.__import__ = watched\n"
        "sys.argv = ['gsdistill', 'doctor']\n"
        "command.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith(SOON["GOMP_SPINCOUNT"])


def test_every_command_that_computes_takes_their_number():
    assert {name for name in names(PACKAGE) if not issubclass(load(PACKAGE, name), Threads)} == {
        "list",
        "doctor",
        "prior",
    }


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "nowhere"], ["render", "nowhere.ply"], ["report", "nowhere"], ["gallery", "nowhere"],
        ["export", "nowhere.ply", "out.ply"], ["view", "nowhere"], ["sweep", "--prompts", "a torus", "--no-run"],
        ["play2d", "--demo", "trap", "--output", "a-file"], ["bench", "--prompt", " "], ["generate", "--prompt", " "],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_the_number_is_taken_before_anything_else(words, monkeypatch, tmp_path):
    """Each of these commands then fails for its own reason."""
    taken = []
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").touch()
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    assert execute([*words, "--threads", "3"]) == 2
    assert taken == [3]


@pytest.mark.parametrize("command", ["generate", "bench"])
def test_a_deterministic_run_takes_one_thread(command, capsys):
    words = [command, "--prompt", "a red torus", "--deterministic", "--device", "cpu", "--threads", "2"]
    try:
        assert execute(words) == 2
    finally:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    assert "--deterministic takes one thread on a CPU, not --threads 2" in capsys.readouterr().err


def test_none_is_no_number_of_threads(capsys):
    assert execute(["evaluate", "nowhere", "--threads", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_nobody_holds_a_turn_in_a_fork():
    """Not even where one of the parent's threads did."""
    turn, held, done = Turn(), threading.Event(), threading.Event()

    def hold() -> None:
        with turn:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        signal.alarm(10)
        with turn, turn:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    done.set()
    thread.join()
