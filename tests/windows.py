"""What Windows lacks or refuses, taken from a process that calls :func:`become`.

The modules, functions and flags that Python has only on other systems are gone. A file that is open or mapped in this
process can be neither removed nor replaced, a folder cannot be opened, only what is open for writing can be synced, and
locks are msvcrt's. Paths stay those of this system, and other processes know nothing of all that.
"""

from __future__ import annotations

import errno
import fcntl
import importlib
import os
import shutil
import signal
import stat
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

MODULES = ("fcntl", "grp", "pwd", "pty", "resource", "syslog", "termios", "tty")
OF_OS = (
    "chown", "fchown", "fork", "forkpty", "getgid", "getuid", "geteuid", "getpgid", "killpg", "mkfifo", "nice",
    "register_at_fork", "sched_getaffinity", "statvfs", "sync", "sysconf", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW",
    "O_NONBLOCK", "O_TMPFILE",
)  # fmt: skip
OF_SIGNAL = ("SIGALRM", "SIGHUP", "SIGPIPE", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm", "pause", "setitimer")
REAL = {name: getattr(os, name) for name in ("open", "fsync", "unlink", "replace")}
flock, LOCK_EX, LOCK_NB = fcntl.flock, fcntl.LOCK_EX, fcntl.LOCK_NB


def in_use(path: Any) -> bool:
    """Whether this process has a file open or mapped."""
    name = Path(path).resolve()
    held = {link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    return name.is_file() and (name in held or f" {name}\n" in Path("/proc/self/maps").read_text(encoding="utf-8"))


def refuse(path: Any) -> None:
    if in_use(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))


def opened(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    if Path(path).is_dir():
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    return REAL["open"](path, flags, mode, dir_fd=dir_fd)


def synced(handle: int) -> None:
    mode = "".join(
        line for line in Path(f"/proc/self/fdinfo/{handle}").read_text(encoding="utf-8").splitlines() if "flags" in line
    )
    if int(mode.split()[1], 8) & 3 == os.O_RDONLY:
        raise OSError(errno.EBADF, "Bad file descriptor")
    REAL["fsync"](handle)


def removed(path: Any, *, dir_fd: int | None = None) -> None:
    refuse(path)
    REAL["unlink"](path, dir_fd=dir_fd)


def replaced(source: Any, target: Any, **folders: Any) -> None:
    refuse(source)
    refuse(target)
    REAL["replace"](source, target, **folders)


def locking(handle: int, mode: int, count: int) -> None:
    assert mode == 2 and count == 1 and stat.S_ISREG(os.fstat(handle).st_mode)
    try:
        flock(handle, LOCK_EX | LOCK_NB)
    except BlockingIOError as error:
        raise PermissionError(errno.EACCES, "Permission denied") from error


def become(*others: str) -> None:
    """Take it all away, for good. Libraries of others, installed for this system, come first and may use it."""
    for name in ("subprocess", *others):
        importlib.import_module(name)
    sys.modules.update({name: None for name in MODULES})  # type: ignore[arg-type]
    for home, lost in ((os, OF_OS), (signal, OF_SIGNAL)):
        for name in lost:
            vars(home).pop(name, None)
    msvcrt = ModuleType("msvcrt")
    msvcrt.LK_NBLCK, msvcrt.locking = 2, locking
    sys.modules["msvcrt"] = msvcrt
    os.open, os.fsync = opened, synced
    os.unlink = os.remove = removed
    os.replace = os.rename = replaced
    shutil._use_fd_functions = False
    tempfile.TemporaryFile = tempfile.NamedTemporaryFile
