"""Where compiled kernels are kept: beside their source where that can be written, and never in a folder called ~."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from gsdistill.disk import compiled, write

SOURCE = """
from gsdistill.disk.compiled import compiled

@compiled()
def double(x: float) -> float:
    return 2.0 * x
"""


@pytest.fixture
def writable(tmp_path, monkeypatch) -> set[str]:
    """Names of folders in ``tmp_path``, the working directory, which alone can be written; no home, no caches."""
    names: set[str] = set()

    def can_write(folder: Path) -> bool:
        here = Path(os.path.relpath(folder, tmp_path)).parts[0] in names
        return here and write.can_write(folder)

    compiled._cache_setting.cache_clear()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compiled, "can_write", can_write)
    monkeypatch.setattr(compiled.CONFIG, "CACHE_DIR", "")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    yield names
    compiled._cache_setting.cache_clear()


def made(tmp_path: Path) -> Path | None:
    """Compile a kernel of a source file; returns where it is kept, relative to the working directory."""
    source = tmp_path / "source" / "kernels.py"
    source.parent.mkdir()
    source.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("kernels", source)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.double(3.0) == 6.0 and compiled.CONFIG.CACHE_DIR in ("", "~/kernels", str(tmp_path / "named"))
    found = module.double.stats.cache_path
    assert not (tmp_path / "~").exists()
    assert (found is None) is not any(tmp_path.rglob("kernels.double-*.nbi"))
    return found and Path(found).relative_to(tmp_path)


def test_beside_the_source_where_that_can_be_written(writable, tmp_path):
    writable |= {"source", "temporary"}
    assert made(tmp_path) == Path("source/__pycache__")


def test_in_the_folder_that_the_user_named(writable, tmp_path, monkeypatch):
    writable |= {"source", "named"}
    monkeypatch.setattr(compiled.CONFIG, "CACHE_DIR", str(tmp_path / "named"))
    assert made(tmp_path).parts[0] == "named"


def test_the_users_own_setting_may_begin_with_the_home(writable, tmp_path, monkeypatch):
    writable |= {"source", "home"}
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(compiled.CONFIG, "CACHE_DIR", "~/kernels")
    assert made(tmp_path).parts[:2] == ("home", "kernels")


def test_in_the_users_cache_where_the_source_cannot_be_written(writable, tmp_path, monkeypatch):
    writable |= {"home", "temporary"}
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert made(tmp_path).parts[:4] == ("home", ".cache", "gsdistill", "numba")


@pytest.mark.parametrize("home", [None, "~", "relative"])
@pytest.mark.parametrize("named", ["", "~/kernels"])
def test_without_a_home_in_a_temporary_folder_of_the_user_alone(home, named, writable, tmp_path, monkeypatch):
    writable |= {"temporary", "~", "relative"}
    if home:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(compiled.CONFIG, "CACHE_DIR", named)
    assert made(tmp_path).parts[:2] == ("temporary", f"gsdistill-{os.getuid()}")
    assert (tmp_path / "temporary" / f"gsdistill-{os.getuid()}").stat().st_mode & 0o777 == 0o700


def test_without_any_place_every_process_compiles(writable, tmp_path):
    writable |= {"~"}
    assert made(tmp_path) is None
