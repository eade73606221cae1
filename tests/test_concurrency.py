"""What the whole process shares and a run changes for a moment: two threads at once leave it as it was."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from gsdistill.disk.write import write_text
from gsdistill.models.load import quiet
from gsdistill.scene.densify.gradient import _seeded

CPU = torch.device("cpu")


def interleaved(
    block: Callable[[int], AbstractContextManager[None]], inside: Callable[[], object] = lambda: None
) -> dict[int, object]:
    """What ``inside`` gives in the blocks 0 and 1, of which 1 begins and ends later than 0, as far as it may."""
    begun, first_ended, found = threading.Event(), threading.Event(), {}

    def second() -> None:
        with block(1):
            begun.set()
            first_ended.wait(5.0)
            found[1] = inside()

    thread = threading.Thread(target=second)
    with block(0):
        thread.start()
        begun.wait(0.2)
        found[0] = inside()
    first_ended.set()
    thread.join()
    return found


def test_how_much_the_libraries_say():
    with quiet():  # which imports them
        pass
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    before = [logger.level for logger in loggers]
    found = interleaved(lambda _: quiet(), lambda: [logger.level for logger in loggers])
    assert found == {0: [logging.ERROR] * 2, 1: [logging.ERROR] * 2}
    assert [logger.level for logger in loggers] == before != found[0]


def test_global_random_numbers():
    before = torch.random.get_rng_state()
    found = interleaved(lambda seed: _seeded(CPU, seed), lambda: float(torch.rand(())))
    alone = [float(torch.rand((), generator=torch.Generator().manual_seed(seed))) for seed in (0, 1)]
    assert [found[0], found[1]] == alone
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not show the umask")
def test_the_umask_is_read_and_not_changed(tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", lambda mask: pytest.fail("other threads would write with another umask"))
            write_text(tmp_path / "a", "a")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    finally:
        os.umask(before)


def test_where_the_umask_is_not_shown_it_is_asked_for(tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(Path, "read_text", lambda *_, **__: "Name:\tpython\n")
        write_text(tmp_path / "a", "a")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640 and os.umask(0o027) == 0o027
    finally:
        os.umask(before)
