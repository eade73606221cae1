"""A file is the old one or the whole new one, and a prompt never names a path."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsdistill.core.errors import OutputError
from gsdistill.disk import places
from gsdistill.disk.places import cache_folder, data_path, slug
from gsdistill.disk.write import (
    atomic_path,
    can_write,
    check_folder,
    temporary_folder,
    write_bytes,
    write_json,
    write_text,
)


def test_the_draft_is_a_sibling_with_the_same_suffix(tmp_path):
    with atomic_path(tmp_path / "a" / "x.tar.gz") as draft:
        assert draft.parent == tmp_path / "a"
        assert draft.name.endswith("-x.tar.gz")
        assert draft.name != "x.tar.gz"
        draft.write_text("new")
        assert not (tmp_path / "a" / "x.tar.gz").exists()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x.tar.gz"]
    assert (tmp_path / "a" / "x.tar.gz").read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_block_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as draft:
        draft.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_then_folder_are_synced_before_and_after_the_rename(tmp_path, monkeypatch):
    path, seen = tmp_path / "x.txt", []
    real = os.fsync

    def spy(handle):
        mode = os.fstat(handle).st_mode
        seen.append(("folder" if stat.S_ISDIR(mode) else "file", path.exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", spy)
    write_text(path, "x")
    assert seen == [("file", False), ("folder", True)]


def test_a_very_long_name_still_fits(tmp_path):
    path = tmp_path / ("n" * 251 + ".ply")
    write_bytes(path, b"x")
    assert path.read_bytes() == b"x"


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError) as caught:
        write_bytes(tmp_path / "x.bin", b"data")
    assert str(caught.value) == f"cannot write {tmp_path / 'x.bin'}: No space left on device"
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*taken/x\.txt: (File exists|Not a directory)"):
        write_text(tmp_path / "taken" / "x.txt", "x")


def test_a_folder_in_place_of_the_file(tmp_path):
    (tmp_path / "x.txt").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*x\.txt: Is a directory"):
        write_text(tmp_path / "x.txt", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_a_vanished_folder(tmp_path):
    folder = tmp_path / "gone"
    with pytest.raises(OutputError, match="No such file or directory"), atomic_path(folder / "x") as draft:
        draft.write_text("x")
        draft.unlink()
        folder.rmdir()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        write_text(tmp_path / "x", "x")


def test_json_is_readable_and_refuses_nan(tmp_path):
    write_json(tmp_path / "x.json", {"ä": [1, 2.5, None]})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"ä": [1, 2.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "y.json", {"a": float("nan")})
    assert not (tmp_path / "y.json").exists()


@settings(deadline=None)
@given(st.text())
def test_a_slug_is_a_safe_file_name(prompt):
    name = slug(prompt)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= 80


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a red torus", "a-red-torus"),
        ("  A  Red\tTorus! ", "a-red-torus"),
        ("../../etc/passwd", "etc-passwd"),
        ("a café table", "a-cafe-table"),
        ("CON", "con"),
    ],
)
def test_slugs_stay_readable(prompt, name):
    assert slug(prompt) == name


def test_prompts_that_lose_letters_keep_apart():
    prompts = ["", "…", "red 杯", "red 椅", "杯", "椅", "x" * 200, "x" * 201, "a 🐈", "a 🐕"]
    assert len({slug(p) for p in prompts}) == len(prompts)
    assert slug("red 杯").startswith("red-")


def test_shipped_files_are_found_in_a_checkout_and_in_a_wheel(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "PACKAGE", tmp_path / "gsdistill")
    assert data_path("configs", "a.yaml") == tmp_path / "configs" / "a.yaml"
    assert data_path("assets", "shapes-prior") == tmp_path / "assets" / "shapes-prior"
    (tmp_path / "gsdistill" / "_data").mkdir(parents=True)
    assert data_path("configs", "a.yaml") == tmp_path / "gsdistill" / "_data" / "configs" / "a.yaml"
    assert data_path("assets", "shapes-prior") == tmp_path / "gsdistill" / "_data" / "shapes-prior"


@pytest.mark.parametrize("caches", [None, "", "~/.cache", "relative"])
def test_the_cache_lies_in_the_home_unless_another_place_is_named_in_full(caches, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if caches is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", caches)
    assert cache_folder("x") == tmp_path / ".cache" / "gsdistill" / "x"
    monkeypatch.setenv("HOME", "relative")
    with pytest.raises(OutputError, match="there is no home folder to keep a cache in; set XDG_CACHE_HOME"):
        cache_folder("x")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder("x") == Path("/caches/gsdistill/x")


def test_a_temporary_folder_is_the_users_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / f"gsdistill-{os.getuid()}"
    assert temporary_folder() == folder == temporary_folder() and can_write(folder)
    folder.chmod(0o770)
    assert temporary_folder() is None
    folder.chmod(0o700)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "lstat", lambda self: SimpleNamespace(st_mode=self.stat().st_mode, st_uid=-1))
        assert temporary_folder() is None
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert temporary_folder() is None


def test_what_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    assert can_write(tmp_path / "a" / "b") and list(tmp_path.glob("a/b/*")) == []
    assert not can_write(tmp_path / "file" / "b")


def test_what_stands_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "good").symlink_to(tmp_path)
    (tmp_path / "dead").symlink_to("gone/for/ever")
    for path in (tmp_path, tmp_path / "a" / "b", tmp_path / "good", tmp_path / "good" / "a"):
        check_folder(path)
    for path in (tmp_path / "dead", tmp_path / "dead" / "run"):
        with pytest.raises(OutputError, match=r"/dead is a link to gone/for/ever, which is not there; make it, or"):
            check_folder(path)
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError, match="/file is a file; choose another --output"):
            check_folder(path)
    for path in (Path("/proc"), Path("/proc/run/here")):  # where root makes no file either
        with pytest.raises(OutputError, match=r"cannot write to /proc: .*; choose another --output"):
            check_folder(path)
    assert len(list(tmp_path.iterdir())) == 3
