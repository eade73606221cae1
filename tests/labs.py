"""Code from outside the package for tests: files in a folder of their own, and what pip leaves of a package."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gsdistill.settings import registry


@contextmanager
def lab(folder: Path, **sources: str) -> Iterator[Path]:
    """A folder with files of these names, in which we are; nothing of them is left in the process afterwards."""
    before = set(sys.modules)
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(registry, "_CALLED", {})
        registry.installed.cache_clear()
        yield folder
    registry.installed.cache_clear()
    for name in {name for name in sys.modules if name.partition(".")[0].startswith(("mine", "lab_of"))} - before:
        del sys.modules[name]


def install(folder: Path, package: str, points: str) -> None:
    """What pip leaves of an installed package: its metadata."""
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(points))
    registry.installed.cache_clear()
