"""The table has a line for each format, and says what is lost."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

from gsdistill.export.settings import extensions

TOOL = Path(__file__).parents[2] / "tools" / "format_table.py"


def test_each_format_is_measured_and_has_a_line(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("format_table", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(tool, "SIZE", 64)
    monkeypatch.setattr(sys, "argv", ["format_table", "--gaussians", "200", "400", "--json", str(tmp_path / "a.json")])
    tool.main()
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert len(rows) == 5 * len(extensions())
    lost = {row["format"] for row in rows if row["psnr"] < 40}
    assert lost == {".splat"}
    assert all(row["sh_degree"] == 3 for row in rows if row["psnr"] < 40)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("`")[1] for line in lines[2:]] == list(extensions())
    assert len({line.count("|") for line in lines}) == 1
