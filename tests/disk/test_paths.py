"""Paths in settings: homes are written out, and a run's are absolute, while names stay names."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from gsdistill.core.errors import ConfigError
from gsdistill.disk.paths import anchored, expanded, may_be_path, paths_in, there
from gsdistill.settings.config import from_dict, to_dict, validate
from gsdistill.settings.ramp import Ramp

RAMP = Ramp(1.0, 2.0)


@dataclass(frozen=True)
class Inner:
    files: tuple[Path, ...] = ()
    model: str | None = field(default=None, metadata=may_be_path(lambda: ("known",)))
    ramp: Ramp = RAMP


@dataclass(frozen=True)
class Outer:
    text: str = ""
    output: Path | None = None
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("~", "/home/me"),
        ("~/runs/x", "/home/me/runs/x"),
        ("~bob/x", "/home/bob/x"),
        ("runs/~/x", "runs/~/x"),
        ("x~", "x~"),
        ("./x", "./x"),
        ("./~bob", "/here/~bob"),
    ],
)
def test_a_home_folder_is_written_out(given, meant, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr("pwd.getpwnam", lambda name: {"bob": SimpleNamespace(pw_dir="/home/bob")}[name])
    monkeypatch.setattr(os, "getcwd", lambda: "/here")
    assert expanded(given, "output") == meant
    assert expanded(meant, "output") == meant


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("~nobody-at-all/x", "there is no user 'nobody-at-all' on this machine; write the whole path, or "
                             "./~nobody-at-all for a folder of that name"),
        ("~a\0b", "there is no user 'a\0b' on this machine"),
        ("~/x", "this account has no home folder; write the whole path, or ./~ for a folder of that name"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("home", [None, "~", "relative"])
def test_a_home_that_is_none_is_an_error(given, told, home, monkeypatch):
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    monkeypatch.delenv("HOME", raising=False)
    if home:
        monkeypatch.setenv("HOME", home)
    with pytest.raises(ConfigError) as caught:
        expanded(given, "output")
    assert str(caught.value).startswith(f"output = '{given}': {told}")


def test_a_path_that_is_empty_is_not_the_current_folder():
    for given in ({"output": ""}, {"inner": {"model": ""}}, {"inner": {"files": ["a", ""]}}):
        with pytest.raises(ConfigError, match=r"^(output|inner\.model|inner\.files\[1\]) is empty: a path or a name"):
            from_dict(Outer, given)


def test_settings_that_are_paths_may_begin_with_a_home_and_texts_may_not(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    given = {"text": "~/a", "output": "~/b", "inner": {"files": ["~/c", "d"], "model": "~/e"}}
    found = from_dict(Outer, given)
    assert found == Outer("~/a", Path("/home/me/b"), Inner((Path("/home/me/c"), Path("d")), "/home/me/e"))
    assert from_dict(Outer, to_dict(found)) == found == validate(found)
    assert anchored(Outer(output=Path("~/b"), inner=Inner(model="~/e"))) == Outer(
        output=Path("/home/me/b"), inner=Inner(model="/home/me/e")
    )
    for make in (lambda value: from_dict(Outer, {"output": value}), lambda value: anchored(Outer(output=Path(value)))):
        with pytest.raises(ConfigError, match=r"output = '~nobody-at-all/x': there is no user 'nobody-at-all'"):
            make("~nobody-at-all/x")


def test_a_folder_called_like_a_home_is_still_to_be_had(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = from_dict(Outer, {"output": "./~backup"})
    assert found == Outer(output=tmp_path / "~backup") == validate(found) == anchored(found)


def test_what_is_there_becomes_absolute_and_names_stay_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("here", "known", "owner/model", "links"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "links" / "it.ply").symlink_to(tmp_path / "here")
    files = (Path("links/it.ply"), Path("gone/../x.ply"), Path("/a/b"))
    config = Outer("here", Path("new"), Inner(files, "here"))
    whole = anchored(config)
    assert (
        whole
        == anchored(whole)
        == Outer(
            "here",
            tmp_path / "new",
            Inner((tmp_path / "links" / "it.ply", tmp_path / "x.ply", Path("/a/b")), str(tmp_path / "here")),
        )
    )
    for model, meant in (
        ("known", "known"),
        ("./known", str(tmp_path / "known")),
        ("owner/model", str(tmp_path / "owner" / "model")),
        ("owner/other", "owner/other"),
        (None, None),
    ):
        assert anchored(Outer(inner=Inner(model=model))).inner.model == meant


def test_dots_behind_a_link_stay(tmp_path, monkeypatch):
    """Where a link leads elsewhere, ``link/..`` is not where the link is."""
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far" / "deep")
    monkeypatch.chdir(tmp_path / "near")
    assert anchored(Outer(output=Path("link/../x"))).output.resolve() == tmp_path / "far" / "x"
    assert anchored(Outer(output=Path("../near/x"))).output == tmp_path / "near" / "x"


def test_every_path_is_found_by_its_name():
    config = Outer("a", Path("b"), Inner((Path("c"), Path("d")), "e"))
    assert list(paths_in(config)) == [
        ("output", Path("b")), ("inner.files", Path("c")), ("inner.files", Path("d")), ("inner.model", "e"),
    ]  # fmt: skip
    assert list(paths_in(Outer("a", inner=Inner(model="known")))) == []


def test_what_is_there(tmp_path):
    (tmp_path / "file").touch()
    assert there(tmp_path) and there(str(tmp_path / "file"))
    assert not any(map(there, ("", "\0", "x" * 5_000, tmp_path / "none")))
