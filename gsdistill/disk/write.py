"""Writes files atomically: to a temporary name in the same folder, synced, then renamed.

A reader sees the old file or the whole new one; neither a crash nor a full disk leaves half a file under its name.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
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
    """Yield a temporary path beside ``path``, with its suffix; the file is renamed to ``path`` if the block succeeds.

    Otherwise it is removed. Missing folders are made. The file and its folder are synced, so that the rename survives a
    power cut.

    Raises:
        OutputError: the block or the renaming raises OSError. The message has the path and the reason.
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

    Lone surrogates, which stand for bytes of file names that are not UTF-8, are written as JSON escapes.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path`` in one piece. Raises OutputError as :func:`atomic_path` does."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def check_folder(path: Path) -> None:
    """Refuse an output folder that is a file, a broken link, or cannot be written.

    Nothing stays behind: a file without a name is written to the nearest folder that exists.

    Raises:
        OutputError: the folder cannot be used; the message has the reason.
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
    """Refuse output files that are folders, exist without ``overwrite``, or cannot be created.

    Raises:
        OutputError: one cannot be used; the message says what to ``choose`` instead.
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
    """Return a temporary folder that only this user can read and write; None if there can be none, as on Windows."""
    if not hasattr(os, "getuid"):  # Windows, whose modes do not show who may write
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
    """Whether files can be created in a folder; a missing folder is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def remove_drafts(folder: Path) -> None:
    """Remove the unfinished files of killed processes from a folder; no other process may be writing there."""
    for draft in folder.glob(f"{DRAFT}{'[0-9a-f]' * 8}-*"):
        discard(draft)


def sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk; nothing is done for folders on Windows, which cannot sync them."""
    windows = not hasattr(os, "O_DIRECTORY")
    if windows and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if windows else os.O_RDONLY)  # Windows syncs only files open for writing
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """The process's umask. If /proc does not show it, the only way is to change it for a moment, for all threads."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(int(line.split()[1], 8) for line in lines if line.startswith("Umask:"))
    except (OSError, StopIteration):
        with _ASKING:
            mask = os.umask(0o077)
            os.umask(mask)
            return mask


def discard(path: Path) -> None:
    """Remove a file if it is there and can be removed; its folder may be missing too."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
