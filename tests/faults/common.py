"""What the drills look at and aim at: a run of seven quick steps of a method that has a state."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from faults.processes import signal_before

METHOD, ITERATIONS = "fsd", 7


def mount(*words: str) -> bool:
    """Whether the system did it, which it does for root alone."""
    return os.geteuid() == 0 and subprocess.run(["mount", *words], capture_output=True).returncode == 0


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints that are there."""
    return sorted(int(path.stem.removeprefix("step-")) for path in folder.glob("checkpoints/step-*.safetensors"))


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the lock."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def one_line(process: Any) -> str:
    """What a process said at last that failed by a mistake of its user or its machine, with no traceback."""
    assert process.wait() == 2, process.text
    assert "Traceback" not in process.text and process.text.count("error: ") == 1, process.text
    return process.text[process.text.index("error: ") :]


def other(drills: ModuleType, folder: Path, whole: Path) -> list[str]:
    """What a finished run does not share with the undisturbed one, all but the splat that it kept at a stop."""
    found = drills.differences(folder, whole)
    return [line for line in found if not (line.startswith("snapshots/") and line.endswith("is in one of them"))]


def at_step(number: int, what: signal.Signals) -> Callable[[], None]:
    """To be called first in a process: it signals itself when it is about to write the checkpoint of a step."""
    return before(1, f"-step-{number:06d}.safetensors", what)


def before(change: int, path: str, what: signal.Signals) -> Callable[[], None]:
    """To be called first in a process: it signals itself before so manieth change of paths with this in them."""
    return partial(signal_before, change, path, what)
