"""Signals during a run: an orderly end in the main thread, and nothing at all in another one."""

from __future__ import annotations

import io
import os
import signal
import threading

import pytest
from rich.console import Console

from gsdistill.errors import Stopped
from gsdistill.progress import SIGNALS, Interrupt


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
