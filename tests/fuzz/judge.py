"""What becomes of one spoilt file: it is read, refused in one line, or a finding.

Memory is what a case adds to the resident peak of the process. A case that never comes back to Python is ended with
its process by faulthandler, and found by who waits for that.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

from gsdistill.core.errors import UserError

SECONDS = 10.0  # that a file may take
MEGABYTES = 1024.0
SHORTAGE = ("allocate", "out of memory", "bad_alloc", "MemoryError")  # what a refusal must not be for


@dataclass(frozen=True)
class Verdict:
    """What one case came to, and what it cost."""

    kind: Literal["read", "refused", "finding"]
    told: str  # the message, or the last lines of a traceback
    seconds: float
    megabytes: float


class Overtime(BaseException):
    """Raised in what takes too long; no reader catches it."""


def judged(read: Callable[[Path], object], path: Path) -> Verdict:
    """Let ``read`` have the file, and say what came of it."""
    before, began = _restarted_peak(), time.perf_counter()
    old = signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    faulthandler.dump_traceback_later(2 * SECONDS, exit=True, file=sys.__stderr__)
    kind, told = "read", ""
    try:
        read(path)
    except UserError as error:
        kind, told = _of_message(str(error))
    except (Exception, Overtime, SystemExit):
        kind, told = "finding", "".join(traceback.format_exc().splitlines(keepends=True)[-9:])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        faulthandler.cancel_dump_traceback_later()
    seconds, megabytes = time.perf_counter() - began, (_status("VmHWM") - before) / 1024
    if megabytes > MEGABYTES:
        kind, told = "finding", f"{megabytes:.0f} MB; {told}"
    return Verdict(kind, told, seconds, max(0.0, megabytes))


def _of_message(message: str) -> tuple[Literal["refused", "finding"], str]:
    if not message.strip() or "\n" in message.strip():
        return "finding", f"not one line: {message!r}"
    if any(word in message for word in SHORTAGE):
        return "finding", f"refused for want of memory alone: {message}"
    return "refused", message


def _late(number: int, frame: FrameType | None) -> None:
    raise Overtime(f"longer than {SECONDS:g} s")


def _restarted_peak() -> float:
    """The resident size in kB, from which the peak is counted anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _status(name: str) -> float:
    with Path(f"/proc/{os.getpid()}/status").open(encoding="ascii", errors="replace") as file:
        return next(float(line.split()[1]) for line in file if line.startswith(f"{name}:"))
