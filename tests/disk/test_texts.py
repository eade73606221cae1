"""Names of files may have any bytes, in any locale; all other text is Unicode."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from rich.console import Console

from gsdistill.cli.main import execute
from gsdistill.core.errors import BadFile, ConfigError
from gsdistill.core.terminal import printable
from gsdistill.disk import texts
from gsdistill.disk.cache import keep, recall
from gsdistill.disk.read import parse_json, read_json
from gsdistill.disk.texts import as_unicode, letters
from gsdistill.disk.write import write_json, write_text
from gsdistill.export.ply import Ply
from gsdistill.generate import run
from gsdistill.models.fingerprint import fingerprint
from gsdistill.models.layout import check_weights
from gsdistill.pages.markup import templates
from gsdistill.run.config import RunConfig, resolve
from gsdistill.run.folder import RunFolder
from gsdistill.scene.init.ball import Ball
from gsdistill.settings.config import from_dict, to_dict, to_yaml
from gsdistill.settings.yaml import load_yaml
from gsdistill.viewer.sources import find, labels

LATIN = "caf\udce9.ply"  # as Python has the bytes of another encoding
GREEK = b"\xce\xb1"


@dataclass(frozen=True)
class Settings:
    text: str = ""
    file: Path | None = None
    files: tuple[Path, ...] = ()
    model: str | None = field(default=None, metadata={"place": tuple})


@pytest.fixture
def splat(tmp_path, monkeypatch) -> Path:
    """A splat under a name that is no UTF-8, in the working directory."""
    monkeypatch.chdir(tmp_path)
    Ply(frame="world").write(Ball(count=20).create("", torch.Generator().manual_seed(0)), tmp_path / LATIN)
    assert [os.fsencode(path.name) for path in tmp_path.iterdir()] == [b"caf\xe9.ply"]
    return Path(LATIN)


@pytest.mark.parametrize("name", [LATIN, "d\udce9/" + LATIN, "\udcff", "路径/é.ply", "a b"])
def test_a_file_of_any_name_is_a_setting_that_yaml_reads_back(name, tmp_path):
    made = from_dict(Settings, {"file": name, "files": [name, "a"], "model": name})
    assert made == Settings(file=Path(name), files=(Path(name), Path("a")), model=name)
    for ascii_only in (False, True):
        write_text(tmp_path / "a.yaml", to_yaml(made, ascii_only))
        assert from_dict(Settings, load_yaml(tmp_path / "a.yaml")) == made
    assert (tmp_path / "a.yaml").read_bytes().isascii()


@pytest.mark.parametrize("setting", ["file", "files", "model"])
@pytest.mark.parametrize("name", ["a\0b", "\ud800", "\udc7f", "\udd00", "a\udfff"])
def test_what_is_no_name_is_refused(setting, name):
    with pytest.raises(ConfigError, match="is no name of a file"):
        from_dict(Settings, {setting: [name] if setting == "files" else name})


def test_text_that_is_no_name_stays_unicode():
    for text in (LATIN, "\ud800"):
        with pytest.raises(ConfigError, match=r"text = .* is not valid Unicode text"):
            from_dict(Settings, {"text": text})


def test_a_locale_without_letters_finds_the_same_files(monkeypatch):
    """os.fsdecode is Python's own word for what the locale makes of bytes."""
    there = GREEK.decode("ascii", "surrogateescape")
    monkeypatch.setattr(texts.os, "fsdecode", lambda name: name.decode("ascii", "surrogateescape"))
    made = from_dict(Settings, {"text": there, "file": there, "model": "α"})
    assert made == Settings(text="α", file=Path(there), model=there)
    assert to_dict(made) == {"text": "α", "file": "α", "files": [], "model": "α"}
    assert from_dict(Settings, to_dict(made)) == made


def test_json_and_pages_take_any_name(tmp_path):
    write_json(tmp_path / "a.json", {"name": LATIN, "other": "é"})
    assert read_json(tmp_path / "a.json") == {"name": LATIN, "other": "é"}
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["other"] == "é"
    with pytest.raises(BadFile, match="surrogates not allowed"):
        parse_json('{"a": "\\ud800"}', "a.json")
    page = templates().from_string('<p title="{{ name }}">{{ name }}</p>').render(name=LATIN)
    assert page == '<p title="caf\\udce9.ply">caf\\udce9.ply</p>'
    assert as_unicode(LATIN) == "caf\\udce9.ply" and as_unicode("é") == letters("\udcc3\udca9") == "é"


@pytest.mark.slow
def test_a_run_in_a_folder_of_any_name_goes_on(tmp_path):
    init = {"name": "ball", "count": 20}
    plain = {"prompt": "a red cube", "method": "sds", "views": 2, "iterations": 2, "snapshots": 0, "init": init}
    settings = {**plain, "output": str(tmp_path / "d\udce9"), "checkpoint_every": 0}
    config = resolve(settings)
    with pytest.MonkeyPatch.context() as patch:  # all is kept, and the end never comes
        patch.setattr(RunFolder, "splats", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(config, Console(quiet=True), extras=False)
    again = from_dict(RunConfig, load_yaml(config.folder / "config.yaml"))
    run(replace(again, resume=True), Console(quiet=True), extras=False)
    assert (config.folder / "gaussians.ply").exists() and read_json(config.folder / "summary.json")["iterations"] == 2


def test_a_cache_in_a_folder_of_any_name_serves(tmp_path):
    path = tmp_path / "d\udce9" / "a.safetensors"
    assert recall(path, "key") is None
    keep(path, "key", {"a": torch.ones(2)})
    found = recall(path, "key")
    assert found is not None and torch.equal(found["a"], torch.ones(2)) and recall(path, "another") is None


def test_a_model_in_such_a_folder_is_refused_for_the_reason(tmp_path):
    model = tmp_path / "d\udce9"
    model.mkdir()
    with pytest.raises(BadFile, match=r"weights are read by names in UTF-8 alone; rename the file or the folder"):
        check_weights(model, ["a.safetensors"])
    check_weights(model, ["a.json"])


def test_letters_that_the_terminal_lacks_are_written_out():
    assert printable("café 杯 \udce9 a", "ascii") == "caf\\xe9 \\u676f \\udce9 a"
    assert printable("café 杯", "latin-1") == "café \\u676f"
    assert printable("café 杯") == "café 杯"


@pytest.mark.slow
def test_commands_take_a_name_that_is_no_utf_8(splat, capsys):
    assert execute(["export", LATIN, "d\udce9/a.splat"]) == 0
    assert execute(["render", LATIN, "--size", "16", "--views", "1", "--frames", "1"]) == 0
    out = capsys.readouterr().out
    assert "d\\udce9/a.splat: 20 Gaussians" in out and "caf\\udce9-render/views.png" in out
    assert {b"d\xe9", b"caf\xe9-render"} < {os.fsencode(path.name) for path in Path().iterdir()}
    assert execute(["generate", "--prompt", "a red cube", "--init", "ply", "--init.path", LATIN, "--dry-run"]) == 0
    Path("a.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert Path(load_yaml("a.yaml")["init"]["path"]).name == LATIN
    assert labels([find(splat)]) == ["caf\\udce9.ply"]
    assert fingerprint([splat]) != fingerprint([Path("a.yaml")])


@pytest.mark.slow
def test_an_ascii_locale_takes_paths_with_accents(splat, tmp_path):
    splat.rename("café.ply")
    words = ["generate", "--prompt", "a red cube", "--init", "ply", "--init.path", "café.ply", "--dry-run"]
    script = f"""
import os, sys
from gsdistill.cli.main import execute
for words in (["export", "café.ply", "é/a.splat"], {words}):
    words = [os.fsdecode(word.encode()) for word in words]
    print("code", execute(words), flush=True)
"""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-"], input=script.encode(), env=environment, capture_output=True, timeout=100
    )
    assert done.stdout.count(b"code 0") == 2 and done.stdout.isascii(), done
    assert (tmp_path / "é" / "a.splat").stat().st_size == 20 * 32
    Path("a.yaml").write_bytes(done.stdout.split(b"code 0\n")[1])
    assert Path(load_yaml("a.yaml")["init"]["path"]).name == "café.ply"
