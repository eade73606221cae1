"""A command line of gsdistill in a process of its own, to be signalled, killed and asked how it ended.

A process is new, from the start of Python on, or a fork of a server that has imported what a run needs and done nothing
else: to files and signals one is as good as the other, and a fork begins its work two seconds earlier.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

__all__ = ["Process", "launch", "preload", "signal_before"]

PRELOADED = (
    "__main__", "gsdistill.cli.main", "gsdistill.generate", "gsdistill.pages.report", "gsdistill.renderer.cpu",
    "gsdistill.settings.registry", "gsdistill.prior.families.small.prior",
    "gsdistill.prior.embeddings", "gsdistill.scene.init.ball",
    "gsdistill.export.ply", "gsdistill.training.checkpoint", "gsdistill.evaluation.truth", "gsplat.strategy",
    "PIL.Image", "imageio_ffmpeg", "safetensors.torch", "numba.typed",
)  # fmt: skip
FORKS = multiprocessing.get_context("forkserver")  # its server starts with the first of them
CHANGES = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir")  # what Python tells before it asks for them


class Process:
    """A command line that was started; its output and errors lie in ``log`` and can be read at any time."""

    def __init__(self, work: BaseProcess | subprocess.Popen[bytes], log: Path) -> None:
        self._work, self.log, self.began = work, log, time.monotonic()
        assert work.pid is not None
        self.pid: int = work.pid

    @property
    def code(self) -> int | None:
        """The exit code, minus the signal for one that was killed; None while it runs."""
        return self._work.poll() if isinstance(self._work, subprocess.Popen) else self._work.exitcode

    @property
    def text(self) -> str:
        """What it has said so far, as one line."""
        return " ".join(self.log.read_text(encoding="utf-8", errors="replace").split())

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.code is None:
            os.kill(self.pid, number)

    @property
    def held(self) -> bool:
        """Whether it stands still, by SIGSTOP."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2]
        except OSError:
            return False
        return state.split()[0] == "T"

    def wait(self, seconds: float = 240.0) -> int:
        """Its exit code, once it has ended. Raises TimeoutError, and kills it, if that takes longer."""
        self.until(lambda: False, seconds)
        code = self.code
        if code is None:
            self._work.kill()
            raise TimeoutError(f"still at work after {seconds:g} s: {self.text}")
        return code

    def until(self, seen: Callable[[], bool], seconds: float = 240.0, pause: float = 2e-4) -> bool:
        """Wait until ``seen``, the end of the process or so many seconds; returns whether it was ``seen``."""
        deadline = time.monotonic() + seconds
        while self.code is None and time.monotonic() < deadline:
            if seen():
                return True
            time.sleep(pause)
        return False


@contextmanager
def launch(
    words: Sequence[str], log: Path, new: bool = False, first: Sequence[Callable[[], object]] = ()
) -> Iterator[Process]:
    """Run ``gsdistill`` with ``words``; it is killed if it is still at work when the block ends.

    ``new``: a new Python instead of a fork. ``first`` is called in a fork before the work, and is made of what pickle
    can name.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    work: BaseProcess | subprocess.Popen[bytes]
    if new:
        with log.open("wb") as output:
            command = [sys.executable, "-m", "gsdistill", *words]
            work = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=hear_signals
            )
    else:
        log.write_bytes(b"")
        work = FORKS.Process(target=perform, args=(tuple(words), log, tuple(first)))
        work.start()
    process = Process(work, log)
    try:
        yield process
    finally:
        work.kill()
        process.wait()


def preload(*more: str) -> None:
    """Name the modules that forks have from their beginning, PRELOADED and more; before the first fork."""
    FORKS.set_forkserver_preload([*PRELOADED, *more])


def hear_signals() -> None:
    """Be stopped by what stops a command in a terminal, even if the parent, as a script's ``command &``, ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def perform(words: Sequence[str], log: Path, first: Sequence[Callable[[], object]]) -> None:
    """The whole life of a fork."""
    from gsdistill.cli.main import execute

    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    hear_signals()
    for act in first:
        act()
    sys.exit(execute(words))


def signal_before(change: int, path: str, number: int = signal.SIGKILL) -> None:
    """From now on this process signals itself just before the so manieth change that it would make to such a path.

    A change is what alters names, or opens a file to write. ``path`` is any part of the path.
    """
    seen = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in CHANGES and isinstance(arguments[0], (str, Path)) and path in str(arguments[0]):
            there = os.path.lexists(arguments[0])
            writes = event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
            seen += writes or (event == "os.mkdir" and not there) or (event not in ("open", "os.mkdir") and there)
            if seen == change:
                seen += 1
                os.kill(os.getpid(), number)

    sys.addaudithook(watch)


preload()
