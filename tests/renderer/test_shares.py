"""Shares cover the range once, whoever takes them, and their errors reach the caller."""

from __future__ import annotations

import os
import threading
import time

import pytest

from gsdistill.renderer._shares import run_in_shares


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("total", [0, 1, 7, 1000])
def test_every_task_is_done_once(threads, total):
    done = []
    run_in_shares(threads, total, 10, lambda first, last: done.extend(range(first, last)))
    assert sorted(done) == list(range(total))


def test_little_work_stays_with_the_caller():
    callers = []
    run_in_shares(4, 19, 10, lambda first, last: callers.append((threading.get_ident(), first, last)))
    assert callers == [(threading.get_ident(), 0, 19)]


def test_several_threads_work_at_once():
    meeting = threading.Barrier(3, timeout=10)
    run_in_shares(3, 3, 1, lambda first, last: meeting.wait())


def test_a_late_helper_is_not_waited_for():
    """While helpers are busy elsewhere, the caller does everything itself."""
    free, busy = threading.Event(), threading.Event()

    def block(first: int, last: int) -> None:
        if threading.current_thread() is not other:
            busy.set()
        free.wait(10)

    other = threading.Thread(target=run_in_shares, args=(2, 2, 1, block))
    other.start()
    assert busy.wait(10)
    done = []
    run_in_shares(2, 100, 10, lambda first, last: done.append(last - first))
    free.set()
    other.join()
    assert sum(done) == 100


def test_an_error_waits_for_every_share_that_has_begun():
    """They write where the caller's arrays are."""
    meeting, ended = threading.Barrier(3, timeout=10), []

    def fail(first: int, last: int) -> None:
        if meeting.wait() == 0:
            time.sleep(0.3)
            ended.append(first)
        else:
            raise ValueError(f"share {first}")

    with pytest.raises((ValueError, threading.BrokenBarrierError)):
        run_in_shares(3, 3, 1, fail)
    assert len(ended) == 1


@pytest.mark.parametrize("slow", [0.0, 0.05])
def test_an_error_in_any_share_reaches_the_caller(slow):
    def fail(first: int, last: int) -> None:
        if first > 0:
            raise ValueError(f"share {first}")
        time.sleep(slow)

    with pytest.raises(ValueError, match="share"):
        run_in_shares(2, 100, 10, fail)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_works_in_a_child_after_a_fork():
    run_in_shares(2, 100, 10, lambda first, last: None)
    child = os.fork()
    if child == 0:
        done = []
        run_in_shares(2, 100, 10, lambda first, last: done.append(last - first))
        os._exit(0 if sum(done) == 100 else 1)
    end = time.monotonic() + 10
    while (found := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
        time.sleep(0.01)
    assert found == (child, 0)
