"""A run that is stopped, killed, hung up or kept out of a folder at work: an orderly end, and all goes on after it.

The long form of the kills is `python tests/faults/drills.py --sweep`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
from faults import drills
from faults.acts import on_terminal, signalled_at_the_prior
from faults.common import ITERATIONS, METHOD, at_step, before, content, one_line, other, steps

NASTY = 'it\'s "late" – $HOME `x`; [bold]ünï 🙂 #'
TAKEN = "another run is at work in"


# --- kill -9


def test_killed_before_single_changes(whole, tmp_path):
    """Nothing drawn yet, a checkpoint whose records are not there yet, two drafts, and all but the last file."""
    one = drills.victim(METHOD, ITERATIONS, tmp_path / "run", whole)
    places = (
        (1, "-start.png"), (3, "metrics.jsonl"), (2, "step-000004.safetensors"), (2, "-views.png"),
        (1, "-turntable.mp4"), (1, "-report.html"),
    )  # fmt: skip
    blows = [drills.Blow(change=change, path=path) for change, path in places]
    outcome = drills.drill(one, [*blows, None])
    assert outcome.wrong == () and [kill.blow for kill in outcome.kills] == blows
    assert [len(kill.drafts) for kill in outcome.kills] == [0, 0, 1, 1, 1, 0]


def test_killed_while_an_earlier_run_is_removed(whole, tmp_path):
    """What is left of it is not taken for a finished run."""
    earlier = tmp_path / "earlier"
    shutil.copytree(whole, earlier)
    config = earlier / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    one = drills.victim(METHOD, ITERATIONS, tmp_path / "run", whole, earlier=earlier)
    outcome = drills.drill(one, [drills.Blow(change=4), *drills.REST])
    assert outcome.wrong == () and outcome.anew == 1


# --- signals


def printed(process) -> list[str]:
    """The words of the command that is said to go on."""
    found = re.search(r"go on with: gsdistill (.*? --resume)", process.text)
    assert found, process.text
    return shlex.split(found[1])


def test_each_signal_in_turn_and_the_printed_command(start, whole, tmp_path):
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


def test_a_second_one_stops_at_once(start, stopped):
    twice = [at_step(4, signal.SIGINT)] * 2
    with start(stopped, "--resume", first=twice) as process:
        assert process.wait() == 130 and "Traceback" not in process.text, process.text
    assert drills.damaged(stopped) == [] and drills.drafts(stopped) == [] and printed(process)
    assert steps(stopped) == [2, 3] and not (stopped / "gaussians.ply").exists()


def test_one_while_the_final_files_are_written(start, stopped, finish):
    with start(stopped, "--resume", first=[before(1, "-views.png", signal.SIGTERM)]) as process:
        assert process.wait() == 143 and "Traceback" not in process.text, process.text
    assert drills.damaged(stopped) == [] and drills.drafts(stopped) == [] and printed(process)
    finish(stopped)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_one_before_the_run_has_its_folder(number, code, start, tmp_path):
    """Nothing is there yet, and nothing is left."""
    with start(tmp_path / "run", first=[partial(signalled_at_the_prior, number)]) as process:
        assert process.wait() == code and "Traceback" not in process.text, process.text
    assert "prior:" in process.text and not (tmp_path / "run").exists()


def said(terminal: int) -> bytes:
    """What has come to a terminal since somebody looked last."""
    try:
        return os.read(terminal, 1 << 16)
    except (BlockingIOError, OSError):  # nothing, or nobody has opened the other end yet
        return b""


def test_a_terminal_that_is_closed(start, finish, tmp_path):
    """SIGHUP comes, and whatever is said from then on is an error to who says it."""
    folder, seen = tmp_path / "run", bytearray()
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    terminal = partial(on_terminal, Path(os.ttyname(theirs)))
    with start(folder, first=[terminal, at_step(3, signal.SIGSTOP)]) as process:
        assert process.until(lambda: seen.extend(said(ours)) or process.held), bytes(seen)
        os.close(theirs)
        os.close(ours)
        process.signal(signal.SIGCONT)
        assert process.wait() == 128 + signal.SIGHUP, (bytes(seen), content(folder).keys())
    assert b"distilling" in seen and process.text == ""
    assert steps(folder)[-1] in (3, 4) and {"gaussians.ply", "views.png"} <= content(folder).keys()
    assert drills.damaged(folder) == [] and drills.drafts(folder) == []
    finish(folder)


# --- two runs into one folder


def test_a_folder_is_one_runs_alone_until_that_is_killed(start, stopped, finish):
    """The second one says so and changes nothing."""
    with start(stopped, "--resume", log="first", first=[at_step(5, signal.SIGSTOP)]) as first:
        assert first.until(lambda: first.held), first.text
        before = content(stopped)
        for more in ((), ("--resume",), ("--overwrite",)):
            with start(stopped, *more) as second:
                assert (TAKEN if more else "is not empty") in one_line(second)
        assert content(stopped) == before
        first.signal(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
    finish(stopped)


def test_of_two_that_start_at_once_one_wins(start, whole, tmp_path):
    folder = tmp_path / "run"
    with start(folder, log="a") as one, start(folder, log="b") as two:
        ends = {one.wait(): one, two.wait(): two}
    assert ends.keys() == {0, 2}, (one.text, two.text)
    line = one_line(ends[2])
    assert TAKEN in line or "is not empty" in line
    assert drills.differences(folder, whole) == []
