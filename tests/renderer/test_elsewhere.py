"""A scene on a device that does not draw is drawn by the CPU: the checks of elsewhere.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKS = {
    "as the CPU alone": (
        "steps_are_those_of_the_cpu", "what_comes_back_lies_where_it_should", "a_backend_is_tried_before_it_is_used",
    ),
    "like Apple's": ("a_whole_run_needs_no_float64", "a_bad_step_changes_nothing"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("checks", CHECKS.values(), ids=CHECKS)
def test_a_device_that_does_not_draw(checks, tmp_path):
    """In processes of their own, for the device that they make up stays there."""
    places = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent)])
    command = [sys.executable, str(HERE / "elsewhere.py"), *checks]
    surroundings = {**os.environ, "PYTHONPATH": places, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
