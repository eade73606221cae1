"""A disk, a folder or a clock that fails a run: one line or none, nothing half written, and all goes on later."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest
from faults import drills
from faults.acts import YEAR, jumping
from faults.common import ITERATIONS, at_step, before, content, mount, one_line, steps

NO_SPACE, READ_ONLY = "No space left on device", "Read-only file system"


# --- a full disk, a quota, a folder that may not be written


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


def test_a_disk_that_fills_up_at_the_start_in_the_middle_and_at_the_end(disk, start, finish):
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


def test_a_quota_that_the_second_checkpoint_exceeds(start, finish, cut, tmp_path):
    """Files may have so many bytes: enough for the first checkpoint, too few for one with Adam's moments."""
    folder = tmp_path / "new"
    limit = (cut / "checkpoints" / "step-000002.safetensors").stat().st_size * 2 // 3
    with start(folder, first=[partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))]) as process:
        assert "File too large" in one_line(process)
    assert steps(folder) == [0] and drills.damaged(folder) == [] and drills.drafts(folder) == []
    finish(folder)


def test_a_disk_that_becomes_read_only(disk, start, finish):
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


# --- a folder that vanishes or changes while a run is at work


def test_a_folder_that_vanishes_between_two_files_is_made_anew(start, whole, tmp_path):
    """What the run wrote before is lost, but not its end."""
    folder = tmp_path / "run"
    with start(folder, first=[before(3, "step-000001.safetensors", signal.SIGSTOP)]) as process:  # which goes
        assert process.until(lambda: process.held), process.text
        folder.rename(tmp_path / "gone")
        process.signal(signal.SIGCONT)
        assert process.wait() == 0, process.text
    assert drills.damaged(folder) == [] and drills.drafts(folder) == []
    lost = ["snapshots/step-000000.ply", "snapshots/step-000003.ply", "start.png"]
    assert drills.differences(folder, whole) == [f"{name} is in one of them" for name in lost]


def test_one_that_vanishes_under_a_file_is_one_line_and_a_way_on(start, whole, tmp_path):
    folder = tmp_path / "run"
    with start(folder, first=[at_step(3, signal.SIGSTOP)]) as process:
        assert process.until(lambda: process.held), process.text
        folder.rename(tmp_path / "gone")
        process.signal(signal.SIGCONT)
        assert "No such file" in one_line(process) and "go on with" in process.text
    with start(folder, "--resume") as process:
        assert process.wait() == 0, process.text
    assert (folder / "gaussians.ply").read_bytes() == (whole / "gaussians.ply").read_bytes()


def test_a_folder_that_becomes_a_file(start, tmp_path):
    folder = tmp_path / "run"
    with start(folder, first=[at_step(3, signal.SIGSTOP)]) as process:
        assert process.until(lambda: process.held), process.text
        folder.rename(tmp_path / "gone")
        folder.write_text("mine")
        process.signal(signal.SIGCONT)
        assert str(folder) in one_line(process)
    assert folder.read_text() == "mine"


# --- checkpoints that are not what was written


def test_of_a_damaged_checkpoint_the_one_before_is_taken(stopped, finish):
    path = stopped / "checkpoints" / "step-000003.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    path.write_bytes(data)
    said = finish(stopped)
    assert "step-000003.safetensors" in said and "the checkpoint before it is taken" in said


# --- a clock that jumps, and files with times that cannot be: neither order nor durations come from them


def test_a_clock_that_jumps_changes_nothing(stopped, finish):
    """The times of the checkpoints are in reverse order too, before 1970 and after 4000."""
    older, newer = (stopped / "checkpoints" / f"step-{step:06d}.safetensors" for step in (2, 3))
    older.write_bytes(b"nobody looks at it")
    os.utime(older, (2**36, 2**36))
    os.utime(newer, (-YEAR, -YEAR))
    said = finish(stopped, first=[jumping])
    summary = json.loads((stopped / "summary.json").read_text())
    seconds = [json.loads(line)["seconds"] for line in (stopped / "metrics.jsonl").read_text().splitlines()]
    assert "damaged" not in said and "is taken" not in said
    assert seconds == sorted(seconds) and 0 < seconds[-1] < 600 and 0 < summary["seconds"] < 600


def test_a_report_of_files_from_far_ahead(whole, disk, tmp_path):
    """A page says when its run was; a time that no calendar has is no error."""
    folder = disk / "run"
    shutil.copytree(whole, folder)
    for name in content(folder):
        os.utime(folder / name, (2**40, 2**40))
    with drills.launch(("report", str(folder)), tmp_path / "log") as process:
        assert process.wait() == 0, process.text
