"""What tests keep from one call of pytest to the next, in folders that are named by all that it is made from.

That is the sources of the modules that make it, of every module of ours that these import, and the versions of the
libraries that run them: a changed source means a new folder, and what an older one holds is not read.
"""

from __future__ import annotations

import ast
import hashlib
import shutil
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path

__all__ = ["kept", "kernels", "made_of", "worlds"]

ROOT = Path(__file__).parents[1]
LIBRARIES = ("torch", "numpy", "numba", "llvmlite")
MOST = 3  # folders of a kind that stay: those of the last few states of the sources


def kept(place: Path, kind: str, modules: Iterable[str], root: Path = ROOT) -> Path:
    """The folder within ``place`` for what these modules make; of others of its kind those used last stay."""
    folder = place / f"{kind}-{key(made_of(modules, root), root)}"
    folder.mkdir(parents=True, exist_ok=True)
    folder.touch()
    for old in sorted(place.glob(f"{kind}-*"), key=_last_used)[:-MOST]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def kernels() -> list[str]:
    """The modules that Numba compiles a part of."""
    return [name for name, path in _modules("").items() if "gsdistill.disk.compiled" in _imported(path)]


def worlds() -> list[str]:
    """The modules that draw the truth."""
    return list(_modules("worlds/"))


def _modules(room: str) -> dict[str, Path]:
    files = sorted((ROOT / "gsdistill").glob(f"{room}**/*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


def made_of(modules: Iterable[str], root: Path = ROOT) -> list[Path]:
    """The files of these modules and of all that they import of ours, lazily or not. Raises ValueError without any."""
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        path = _file(waiting.pop(), root)
        if path is not None and path not in found:
            found.add(path)
            waiting += _imported(path)
    if not found:
        raise ValueError(f"there is no source of {list(modules)}")
    return sorted(found)


def key(files: Iterable[Path], root: Path) -> str:
    """A name for the names and the content of these files, and for what runs them."""
    digest = hashlib.sha256(repr((sys.version, *map(version, LIBRARIES))).encode())
    for file in files:
        data = file.read_bytes()
        digest.update(f"\0{file.relative_to(root).as_posix()}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:16]


@cache
def _imported(path: Path) -> set[str]:
    """The names that a module imports, each of which may be that of a module or of something in one."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _file(name: str, root: Path) -> Path | None:
    place = root.joinpath(*name.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def _last_used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:  # another process has removed it
        return 0.0
