"""The long form counts what becomes of each case, outlives a process that dies, and keeps what it finds."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

import pytest
from fuzz import readers
from fuzz.mutate import BYTES
from fuzz.targets import TARGETS, Target

from gsdistill.core.errors import BadFile


def read(path: Path) -> None:
    """Dies of files that are shorter, fails on longer ones, refuses the others that are not whole."""
    data = path.read_bytes()
    if len(data) < 9:
        os._exit(3)
    if len(data) > 9:
        raise KeyError("long")
    if data != b"x" * 9:
        raise BadFile("not whole")


def seeds(folder: Path) -> None:
    (folder / "toy.bin").write_bytes(b"x" * 9)


@pytest.fixture
def fuzz(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "BATCH", 7)

    def run(*words: str, fails: bool = False) -> dict:
        words = (*words, "--json", str(tmp_path / "a.json"), "--findings", str(tmp_path / "found"))
        monkeypatch.setattr(sys, "argv", ["readers", *words])
        with pytest.raises(SystemExit, match="1") if fails else contextlib.nullcontext():
            readers.main()
        return json.loads((tmp_path / "a.json").read_text())

    return run


def test_every_case_is_counted_and_findings_are_kept(fuzz, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TARGETS, "toy", Target(seeds, {".bin": BYTES}, read, 0))
    row = fuzz("--target", "toy", "--mutations", "40", fails=True)["targets"]["toy"]
    assert row["mutations"] == 40 == row["read"] + row["refused"] + row["findings"]
    assert row["refused"] > 3 and row["findings"] > 10
    kept = {path.parent.name: path for path in (tmp_path / "found").glob("*/*.bin")}
    told = {path.parent.name: path.read_text() for path in (tmp_path / "found").glob("*/told.txt")}
    assert len(kept) == 2 and kept.keys() == told.keys()  # one for each place, not for each case
    for name, path in kept.items():
        size = path.stat().st_size
        assert ("the process ended with 3" if size < 9 else "KeyError: 'long'") in told[name] and size != 9
    assert "toy" in capsys.readouterr().out


def test_the_share_of_each_target_makes_the_whole(fuzz, monkeypatch):
    assert sum(target.share for target in TARGETS.values()) == 100
    for name in [name for name in TARGETS if name not in ("splat", "prompt")]:
        monkeypatch.delitem(TARGETS, name)
    rows = fuzz("--mutations", "100")["targets"]
    assert {name: row["mutations"] for name, row in rows.items()} == {"splat": 17, "prompt": 6}
    assert rows["splat"]["refused"] > 0 and not any(row["findings"] for row in rows.values())
