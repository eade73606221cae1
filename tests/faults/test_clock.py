"""A clock that jumps, and files with times that cannot be: neither order nor durations come from them."""

from __future__ import annotations

import json
import os
import shutil

from faults.clocks import YEAR, jumping
from faults.common import content


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


def test_a_report_of_files_from_far_ahead(drills, whole, disk, tmp_path):
    """A page says when its run was; a time that no calendar has is no error."""
    folder = disk / "run"
    shutil.copytree(whole, folder)
    for name in content(folder):
        os.utime(folder / name, (2**40, 2**40))
    with drills.launch(("report", str(folder)), tmp_path / "log") as process:
        assert process.wait() == 0, process.text
