"""What the folder of a run tells, as far as it is there: read strictly, so that a broken file is one clear error.

config.yaml        what was asked for; makes a folder a run
metrics.jsonl      the course
summary.json       the account of a run that has ended
evaluation.json    figures, once they have been measured
failure.json       why a run of a sweep diverged
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsdistill.core.errors import BadFile
from gsdistill.disk.read import read_json
from gsdistill.evaluation.figures import renewed
from gsdistill.settings.registry import label_of
from gsdistill.settings.yaml import load_yaml

if TYPE_CHECKING:
    pass

from gsdistill.scene.read import CONFIG
from gsdistill.scene.read import OF_A_RUN as SPLAT

__all__ = [
    "CONFIG",
    "EVALUATION",
    "FAILURE",
    "RECORDS",
    "SNAPSHOTS",
    "SPLAT",
    "SUMMARY",
    "Run",
    "is_run",
    "named",
    "number",
    "read_figures",
    "read_run",
    "snapshots",
    "told",
]

RECORDS, SUMMARY = "metrics.jsonl", "summary.json"
EVALUATION, FAILURE = "evaluation.json", "failure.json"
LARGEST = 1e300  # magnitude of a figure; the difference of two is a number too
LATEST = datetime(9999, 1, 1).timestamp()  # that a page can tell


@dataclass(frozen=True)
class Run:
    """One run; a mapping whose file is not there is empty."""

    folder: Path
    settings: dict[str, Any]
    summary: dict[str, Any]
    evaluation: dict[str, Any]
    failure: str | None

    @property
    def prompt(self) -> str:
        """What was to be made."""
        return str(self.settings["prompt"])

    @property
    def method(self) -> str:
        """The names of its stages' methods, of one from outside its class, and of what finished it."""
        top, stages = self.settings.get("method"), self.settings.get("stages")
        own = (
            [stage.get("method") for stage in stages if isinstance(stage, Mapping)] if isinstance(stages, list) else []
        )
        called = dict.fromkeys(label_of(named(method) or named(top) or "?") for method in own or [top])
        finish = named(self.settings.get("finish")) or "none"
        return ", ".join([*called, *([] if finish == "none" else [f"finish {finish}"])])

    @property
    def prior(self) -> str:
        """The prior's name, of one from outside its class."""
        return label_of(told(self.settings.get("prior")))

    @property
    def seed(self) -> str:
        """The number that all random ones came from."""
        return told(self.settings.get("seed"))

    @property
    def when(self) -> datetime:
        """When its last step was made, as its files tell; times beyond every calendar are its ends."""
        there = [path for name in (CONFIG, RECORDS, SUMMARY) if (path := self.folder / name).is_file()]
        latest = max(path.stat().st_mtime for path in there)
        return datetime.fromtimestamp(min(max(latest, 0.0), LATEST))

    @property
    def finished(self) -> bool:
        """Whether all steps were made and their account is there."""
        return bool(self.summary)


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return any((folder / name).is_file() for name in (CONFIG, SUMMARY))


def read_run(folder: Path) -> Run:
    """Read the folder of a run.

    Raises:
        BadFile: it is none, or one of its files cannot be read.
    """
    if not is_run(folder):
        what = f"it lacks {CONFIG}" if folder.is_dir() else "there is no such folder"
        raise BadFile(f"{folder} is not the folder of a run: {what}")
    settings = load_yaml(folder / CONFIG)
    if not isinstance(settings.get("prompt"), str):
        raise BadFile(f"{folder / CONFIG} names no prompt")
    summary, failure = (_mapping(folder / name) for name in (SUMMARY, FAILURE))
    reason = str(failure["error"] or "no reason is told") if "error" in failure else None
    return Run(folder, settings, summary, read_figures(folder), reason)


def read_figures(folder: Path) -> dict[str, Any]:
    """The figures that are kept beside a run's splat, none if it has not been measured; by the names of today.

    Raises:
        BadFile: they cannot be read.
    """
    return renewed(_mapping(folder / EVALUATION))


def number(values: Mapping[str, Any], name: str) -> int | float | None:
    """Return a finite number that can be computed with, or None where there is none."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) <= LARGEST else None


def told(setting: Any) -> str:
    """Return a setting as text, a question mark where there is none."""
    return "?" if setting is None else str(setting)


def named(setting: Any) -> str | None:
    """Return the name in a named setting: ``cds``, or ``{name: cds, ...}``."""
    name = setting.get("name") if isinstance(setting, Mapping) else setting
    return name if isinstance(name, str) else None


def _mapping(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


SNAPSHOTS = "snapshots"


def snapshots(folder: Path) -> dict[int, Path]:
    """The splats that a run has kept on its way, by step, in order."""
    matches = (re.fullmatch(r"step-(\d+)\.ply", path.name) for path in (folder / SNAPSHOTS).glob("step-*.ply"))
    return {int(match[1]): folder / SNAPSHOTS / match[0] for match in sorted(matches, key=str) if match}
