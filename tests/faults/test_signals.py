"""Ctrl-C, SIGTERM and SIGHUP: an orderly end, the shell's exit code, and a command that goes on as it is printed."""

from __future__ import annotations

import re
import shlex
import signal

import pytest
from faults.common import at_step, before, other, steps

NASTY = 'it\'s "late" – $HOME `x`; [bold]ünï 🙂 #'


def printed(process) -> list[str]:
    """The words of the command that is said to go on."""
    found = re.search(r"go on with: gsdistill (.*? --resume)", process.text)
    assert found, process.text
    return shlex.split(found[1])


def test_each_signal_in_turn_and_the_printed_command(start, drills, whole, tmp_path):
    """From a folder whose name a shell would take apart; every command but the first one is the printed one."""
    folder, words = tmp_path / NASTY, []
    for number, step in ((signal.SIGINT, 1), (signal.SIGTERM, 3), (signal.SIGHUP, 5)):
        first = [at_step(step, number)]
        with drills.launch(words, tmp_path / "log", first=first) if words else start(folder, first=first) as process:
            assert process.wait() == 128 + number, process.text
        assert "stopping after this step" in process.text and "Traceback" not in process.text
        assert steps(folder)[-1] in (step, step + 1) and drills.damaged(folder) == [] and drills.drafts(folder) == []
        words = printed(process)
        assert words == ["generate", "--config", str(folder), "--resume"]
    with drills.launch(words, tmp_path / "log") as process:
        assert process.wait() == 0, process.text
    assert other(drills, folder, whole) == []


def test_a_second_one_stops_at_once(start, drills, stopped):
    twice = [at_step(4, signal.SIGINT)] * 2
    with start(stopped, "--resume", first=twice) as process:
        assert process.wait() == 130 and "Traceback" not in process.text, process.text
    assert drills.damaged(stopped) == [] and drills.drafts(stopped) == [] and printed(process)
    assert steps(stopped) == [2, 3] and not (stopped / "gaussians.ply").exists()


def test_one_while_the_final_files_are_written(start, drills, stopped, finish):
    with start(stopped, "--resume", first=[before(1, "-views.png", signal.SIGTERM)]) as process:
        assert process.wait() == 143 and "Traceback" not in process.text, process.text
    assert drills.damaged(stopped) == [] and drills.drafts(stopped) == [] and printed(process)
    finish(stopped)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_before_the_run_has_its_folder(number, start, tmp_path):
    """Nothing is there yet, and nothing is left."""
    with start(tmp_path / "run") as process:
        assert process.until(lambda: "prior:" in process.text), process.text
        process.signal(number)
        code = process.wait()
    assert code in (130, -number) and "Traceback" not in process.text, process.text
    assert not (tmp_path / "run").exists()
