"""The table has a line for each format, and says what is lost."""

from __future__ import annotations

import json
import sys

import pytest
import tooling

from gsdistill.core.frames import FRAMES
from gsdistill.export.settings import extensions


@pytest.mark.slow
def test_each_format_is_measured_and_has_a_line(tmp_path, monkeypatch, capsys):
    tool = tooling.tool("readme/format_table")
    monkeypatch.setattr(tool, "SIZE", 64)
    monkeypatch.setattr(sys, "argv", ["format_table", "--gaussians", "200", "400", "--json", str(tmp_path / "a.json")])
    tool.main()
    kept = json.loads((tmp_path / "a.json").read_text())
    rows = kept["rows"]
    assert list(kept["frames"]) == list(FRAMES) and all(100 < found <= 160 for found in kept["frames"].values())
    assert len(rows) == 5 * len(extensions())
    lost = {row["format"] for row in rows if row["psnr"] < 40}
    assert lost == {".splat"}
    assert all(row["sh_degree"] == 3 for row in rows if row["psnr"] < 40)
    assert all(row["gaussians_read"] == row["gaussians"] and row["moved"] < 0.01 for row in rows)
    assert all(abs(row["psnr"] - row["psnr_tests_reader"]) < 1 or row["psnr"] > 100 for row in rows)
    assert all(row["moved"] == 0 for row in rows if row["format"] in (".ply", ".glb", ".splat"))
    sizes, losses, frames = (part.splitlines() for part in capsys.readouterr().out.split("\n\n"))
    for lines, names in ((sizes, extensions()), (losses, extensions()), (frames, FRAMES)):
        assert [line.split("`")[1] for line in lines[2:]] == list(names)
        assert len({line.count("|") for line in lines}) == 1
