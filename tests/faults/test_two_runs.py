"""Two runs into one folder: the first one has it, and the second one says so and changes nothing."""

from __future__ import annotations

import signal

from faults.common import at_step, content, one_line

TAKEN = "another run is at work in"


def test_a_folder_is_one_runs_alone_until_that_is_killed(start, stopped, finish):
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


def test_of_two_that_start_at_once_one_wins(start, drills, whole, tmp_path):
    folder = tmp_path / "run"
    with start(folder, log="a") as one, start(folder, log="b") as two:
        ends = {one.wait(): one, two.wait(): two}
    assert ends.keys() == {0, 2}, (one.text, two.text)
    line = one_line(ends[2])
    assert TAKEN in line or "is not empty" in line
    assert drills.differences(folder, whole) == []
