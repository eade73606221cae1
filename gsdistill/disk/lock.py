"""Locks between processes."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType

from gsdistill.core.errors import OutputError
from gsdistill.disk.write import discard

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

__all__ = ["Claim"]


NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # errors of file systems without locks


class Claim:
    """A lock on a file, held from :meth:`take` until the ``with`` block or the process ends.

    On a file system without locks, every process gets it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def take(self) -> bool:
        """Try to get the lock without waiting, and return whether this process has it. A missing file is created.

        Raises:
            OutputError: the file cannot be created, opened or locked.
        """
        if self._is_there():
            return True
        self._release()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = _lock(self._path)
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from error
        return self._handle is not None

    def _is_there(self) -> bool:
        """Whether the locked file still has its name."""
        try:
            return self._handle is not None and os.path.samestat(os.fstat(self._handle), self._path.stat())
        except OSError:
            return False

    def _release(self) -> None:
        if self._handle is not None:
            if self._is_there():
                discard(self._path)  # while it is still locked
            os.close(self._handle)
            self._handle = None
            if fcntl is None:  # Windows removes no open file; now it can, unless another process has it open
                discard(self._path)


def _lock(path: Path) -> int | None:
    """Open and lock the file at ``path``, and return its descriptor; None if another process holds the lock."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _hold(handle)
            if os.fstat(handle).st_nlink:  # else the previous holder has just removed the file
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError as error:
            if error.errno in NO_LOCKS:
                return handle
            os.close(handle)
            raise
        os.close(handle)


def _hold(handle: int) -> None:
    """Lock an open file. Raises BlockingIOError if it is locked through another descriptor."""
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    except PermissionError as error:
        raise BlockingIOError(error.errno, error.strerror) from error
