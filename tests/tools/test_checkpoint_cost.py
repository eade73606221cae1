"""The figures are of whole checkpoints of so many Gaussians."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "bench" / "checkpoint_cost.py"


@pytest.mark.slow
def test_a_row_for_each_number_of_gaussians(tmp_path):
    words = [
        sys.executable,
        str(TOOL),
        "--counts",
        "1000",
        "--degrees",
        "0",
        "3",
        "--times",
        "1",
        "--folder",
        str(tmp_path),
    ]
    table = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    rows = re.findall(r"\| 1,000 \| (\d) \| ([\d.]+) \|", table)
    numbers = {0: 14, 3: 59}  # of a Gaussian, each with two moments, 4 bytes
    assert [int(degree) for degree, _ in rows] == [0, 3]
    for degree, size in rows:
        held = numbers[int(degree)] * 3 * 4 * 1000 / 1e6
        assert held < float(size) < held + 0.03
    assert not list(tmp_path.iterdir())
