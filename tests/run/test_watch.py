"""Signals during a run: an orderly end in the main thread, and nothing at all in another one."""

from __future__ import annotations

import io
import os
import signal
import threading
import types

import pytest
import torch
from rich.console import Console

from gsdistill.core.errors import Stopped
from gsdistill.run.watch import SIGNALS, Interrupt, StepBar


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


def test_the_first_signal_asks_and_the_second_ends_the_block():
    before, console = handlers(), Console(file=io.StringIO())
    with pytest.raises(Stopped) as caught, Interrupt(console) as interrupt:
        assert not interrupt.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.asked
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.number == signal.SIGTERM and handlers() == before


def test_in_another_thread_no_handler_changes():
    before, found = handlers(), []

    def work() -> None:
        with Interrupt(Console(quiet=True)) as interrupt:
            found.extend(handlers())
            found.append(interrupt.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [*before, False] and handlers() == before


def records(first, last):
    for step in range(first, last + 1):
        yield types.SimpleNamespace(number=step, count=1000 + step, loss=torch.tensor(0.125))


def test_a_log_gets_a_plain_line_after_every_tenth_of_the_steps(monkeypatch):
    seconds = iter(range(0, 1000, 4))
    monkeypatch.setattr("gsdistill.run.watch.time.perf_counter", lambda: next(seconds))
    file = io.StringIO()
    with StepBar(Console(file=file), 300, 0) as bar:
        for record in records(1, 300):
            bar.on_step(record, None)
    lines = file.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == "step 30 of 300, 10 %, 7.5 it/s, 36 s left, 1,030 Gaussians, loss 0.125"
    assert lines[-1] == "step 300 of 300, 100 %, 7.5 it/s, 1,300 Gaussians, loss 0.125"
    assert all(line.isprintable() for line in lines)


def test_a_log_of_a_run_that_goes_on_begins_where_it_went_on():
    file = io.StringIO()
    with StepBar(Console(file=file), 7, 5) as bar:
        for record in records(6, 7):
            bar.on_step(record, None)
    assert [line.partition(",")[0] for line in file.getvalue().splitlines()] == ["step 6 of 7", "step 7 of 7"]


def test_a_terminal_gets_a_bar():
    file = io.StringIO()
    with StepBar(Console(file=file, force_terminal=True, width=120), 20, 0) as bar:
        for record in records(1, 20):
            bar.on_step(record, None)
    assert "step 2 of 20" not in file.getvalue()
    assert "20/20" in file.getvalue()
