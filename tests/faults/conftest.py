"""Runs in processes of their own, and one that nobody disturbs, with which the others are compared."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from faults import drills
from faults.common import ITERATIONS, METHOD, at_step, mount, other, steps


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("faults") / "whole"
    drills.undisturbed(drills.victim(METHOD, ITERATIONS, folder, folder))
    return folder


@pytest.fixture
def start(tmp_path) -> Callable[..., AbstractContextManager[Any]]:
    """Start the same run, into a folder and with more flags."""

    def begin(folder: Path, *more: str, log: str = "log", **how: Any) -> AbstractContextManager[Any]:
        words = ("generate", "--method", METHOD, *drills.SHORT, "--iterations", str(ITERATIONS))
        return drills.launch([*words, "--output", str(folder), *more], tmp_path / log, **how)

    return begin


@pytest.fixture(scope="session")
def cut(tmp_path_factory) -> Path:
    """The folder of such a run that was killed when it had made its third step."""
    folder = tmp_path_factory.mktemp("faults") / "cut"
    one = drills.victim(METHOD, ITERATIONS, folder, folder)
    with drills.launch(one.words, folder.with_suffix(".log"), first=[at_step(4, signal.SIGKILL)]) as process:
        assert process.wait() == -signal.SIGKILL and steps(folder) == [2, 3], process.text
    return folder


@pytest.fixture
def stopped(cut, tmp_path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(cut, tmp_path / "run"))


@pytest.fixture
def finish(start, whole) -> Callable[..., str]:
    """Let a run go on to its end, which is that of the undisturbed one; returns what it said."""

    def end(folder: Path, *more: str, **how: Any) -> str:
        with start(folder, "--resume", *more, **how) as process:
            assert process.wait() == 0, process.text
        assert other(drills, folder, whole) == [] and drills.drafts(folder) == []
        return process.text

    return end


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of its own, of 32 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)):
        pytest.skip("only root may mount a small disk")
    yield place
    while place.is_mount():
        subprocess.run(["umount", "-l", str(place)], check=True)
