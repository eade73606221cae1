"""How files are written: to a temporary name in the same folder, synced, then renamed.

A reader sees the old file or the whole new one, and neither a crash nor a full disk leaves half a file under its name.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gsdistill.core.errors import OutputError

__all__ = [
    "atomic_path",
    "can_write",
    "check_folder",
    "check_targets",
    "discard",
    "remove_drafts",
    "sync",
    "temporary_folder",
    "write_bytes",
    "write_json",
    "write_text",
]

_ASKING = threading.Lock()
DRAFT = ".tmp-"  # how the names of unfinished files begin


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` with its suffix; it becomes ``path`` if the block succeeds, else it goes.

    Missing folders are made. The file and its folder are synced, so the rename survives a power cut.

    Raises:
        OutputError: the file system refuses, in the block or here; the path and the reason are named.
    """
    path = Path(path)
    draft = path.with_name(f"{DRAFT}{uuid.uuid4().hex[:8]}-{path.name[-60:]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        draft.chmod(0o666 & ~_umask())  # some libraries write for the owner alone
        sync(draft)
        draft.replace(path)
        sync(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        discard(draft)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write ``data`` to ``path`` in one piece. Raises OutputError as :func:`atomic_path` does."""
    with atomic_path(path) as draft:
        draft.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path`` in one piece. Raises OutputError as :func:`atomic_path` does.

    Bytes of a file's name that are no UTF-8 become the escapes that JSON has for them.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path`` in one piece. Raises OutputError as :func:`atomic_path` does."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def check_folder(path: Path) -> None:
    """Refuse a folder to write to where a file, or a link that leads nowhere, stands in the way, or that is read-only.

    Nothing is made; what can be written is asked of a file without a name, in the nearest folder that is there.

    Raises:
        OutputError: what stands there, or why the file system refuses.
    """
    first = next(place for place in (path, *path.parents) if place.is_symlink() or place.exists())
    if not first.exists():
        target = first.readlink()
        raise OutputError(f"{first} is a link to {target}, which is not there; make it, or choose another --output")
    if not first.is_dir():
        raise OutputError(f"{first} is a file; choose another --output")
    try:
        tempfile.TemporaryFile(dir=first).close()
    except OSError as error:
        raise OutputError(f"cannot write to {first}: {error.strerror or error}; choose another --output") from error


def check_targets(targets: Iterable[Path], overwrite: bool, choose: str = "another name") -> None:
    """Refuse files that are folders, there already, or where none can be made; what to ``choose`` instead is told.

    Raises:
        OutputError: one is.
    """
    for path in targets:
        if path.is_dir():
            raise OutputError(f"{path} is a folder; choose {choose}")
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists; choose {choose}, or replace it with --overwrite")
        nearest = next(place for place in path.absolute().parents if place.is_symlink() or place.exists())
        if not can_write(nearest):
            raise OutputError(f"{path} cannot be made: {nearest} is no folder that can be written to; choose {choose}")


def temporary_folder() -> Path | None:
    """Return a folder among the temporary ones that nobody else can write to; None where there is none to be had."""
    if not hasattr(os, "getuid"):  # Windows, where bits of a mode do not tell
        return None
    try:
        path = Path(tempfile.gettempdir()) / f"gsdistill-{os.getuid()}"
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError:
        return None
    own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
    return path if own else None


def can_write(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def remove_drafts(folder: Path) -> None:
    """Remove what processes that were killed have left unfinished in a folder of which nobody else writes."""
    for draft in folder.glob(f"{DRAFT}{'[0-9a-f]' * 8}-*"):
        discard(draft)


def sync(path: Path) -> None:
    """Wait until what was written to a file or a folder is on the disk; Windows has no such call for folders."""
    windows = not hasattr(os, "O_DIRECTORY")
    if windows and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if windows else os.O_RDONLY)  # Windows syncs what is open for writing
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """The process's umask; where the system does not show it, it can only be learnt by changing it for all threads."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(int(line.split()[1], 8) for line in lines if line.startswith("Umask:"))
    except (OSError, StopIteration):
        with _ASKING:
            mask = os.umask(0o077)
            os.umask(mask)
            return mask


def discard(path: Path) -> None:
    """Remove a draft that may be gone already, in a folder that may be gone too."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
