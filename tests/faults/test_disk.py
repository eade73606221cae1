"""A full disk, a quota and a folder that may not be written: one line, nothing half written, and all goes on later."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest
from faults.common import ITERATIONS, at_step, before, content, mount, one_line, steps

NO_SPACE, READ_ONLY = "No space left on device", "Read-only file system"


def fill(disk: Path) -> Path:
    """Take all the room that is left."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 12)):
                pass
        except OSError:
            return ballast
    raise AssertionError("the disk has no end")


def test_a_disk_that_fills_up_at_the_start_in_the_middle_and_at_the_end(disk, start, finish, drills):
    folder, ballast = disk / "run", fill(disk)
    with start(folder) as process:
        assert NO_SPACE in one_line(process)
    assert drills.damaged(folder) == [] and drills.drafts(folder) == [] and steps(folder) == []
    ballast.unlink()
    for more, moment, kept in (
        ("--overwrite", at_step(3, signal.SIGSTOP), 2),
        ("--resume", before(1, "-views.png", signal.SIGSTOP), ITERATIONS),
    ):
        with start(folder, more, first=[moment]) as process:
            assert process.until(lambda process=process: process.held), process.text
            fill(disk)
            process.signal(signal.SIGCONT)
            assert NO_SPACE in one_line(process) and "--resume" in process.text
        assert drills.damaged(folder) == [] and drills.drafts(folder) == [] and steps(folder)[-1] == kept
        ballast.unlink()
    finish(folder)


def test_a_quota_that_the_second_checkpoint_exceeds(start, finish, drills, cut, tmp_path):
    """Files may have so many bytes: enough for the first checkpoint, too few for one with Adam's moments."""
    folder = tmp_path / "new"
    limit = (cut / "checkpoints" / "step-000002.safetensors").stat().st_size * 2 // 3
    with start(folder, first=[partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))]) as process:
        assert "File too large" in one_line(process)
    assert steps(folder) == [0] and drills.damaged(folder) == [] and drills.drafts(folder) == []
    finish(folder)


def test_a_disk_that_becomes_read_only(disk, start, finish, drills):
    folder = disk / "run"
    with start(folder, first=[at_step(3, signal.SIGSTOP)]) as process:
        assert process.until(lambda: process.held), process.text
        assert mount("--bind", str(disk), str(disk)) and mount("-o", "remount,bind,ro", str(disk))
        process.signal(signal.SIGCONT)
        assert READ_ONLY in one_line(process)
    before = content(folder)
    for place in (folder, disk / "new"):
        with start(place, *(["--resume"] if place == folder else [])) as process:
            assert READ_ONLY in one_line(process)
    assert content(folder) == before and not (disk / "new").exists() and drills.damaged(folder) == []
    subprocess.run(["umount", str(disk)], check=True)
    finish(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_access(start, tmp_path):
    (tmp_path / "mine").mkdir(mode=0o500)
    with start(tmp_path / "mine" / "run") as process:
        assert "Permission denied" in one_line(process)
