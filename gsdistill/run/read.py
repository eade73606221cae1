"""Reads the folder of a run. Files may be missing, but a broken one is an error that names it.

config.yaml        the settings; a folder with this file is a run
metrics.jsonl      one record per logged step
summary.json       times, counts and versions, written when all steps are made
evaluation.json    the figures, once they have been measured
failure.json       why a run of a sweep diverged
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gsdistill.core.errors import BadFile
from gsdistill.disk.read import read_json
from gsdistill.evaluation.figures import renewed
from gsdistill.scene.read import CONFIG
from gsdistill.scene.read import OF_A_RUN as SPLAT
from gsdistill.settings.registry import label_of
from gsdistill.settings.yaml import load_yaml

__all__ = [
    "CONFIG",
    "EVALUATION",
    "FAILURE",
    "PARTICLES",
    "RECORDS",
    "SNAPSHOTS",
    "SPLAT",
    "SUMMARY",
    "Run",
    "is_run",
    "name_in",
    "number",
    "read_evaluation",
    "read_run",
    "snapshots",
    "text_of",
]

RECORDS, SUMMARY = "metrics.jsonl", "summary.json"
EVALUATION, FAILURE = "evaluation.json", "failure.json"
SNAPSHOTS = "snapshots"
PARTICLES = "particles"
LARGEST = 1e300  # the largest figure that is taken; the difference of two of them is still finite
LATEST = datetime(9999, 1, 1).timestamp()  # about the latest time that datetime can hold


@dataclass(frozen=True)
class Run:
    """One run. A mapping is empty where its file is missing, and ``failure`` is None."""

    folder: Path
    settings: dict[str, Any]
    summary: dict[str, Any]
    evaluation: dict[str, Any]
    failure: str | None

    @property
    def prompt(self) -> str:
        """The prompt."""
        return str(self.settings["prompt"])

    @property
    def method(self) -> str:
        """The names of the stages' methods and of the finish, if any; of a class from outside, the class's name."""
        top, stages = self.settings.get("method"), self.settings.get("stages")
        own = (
            [stage.get("method") for stage in stages if isinstance(stage, Mapping)] if isinstance(stages, list) else []
        )
        called = dict.fromkeys(label_of(name_in(method) or name_in(top) or "?") for method in own or [top])
        finish = name_in(self.settings.get("finish")) or "none"
        return ", ".join([*called, *([] if finish == "none" else [f"finish {finish}"])])

    @property
    def prior(self) -> str:
        """The prior's name; of a class from outside, the class's name."""
        return label_of(text_of(self.settings.get("prior")))

    @property
    def seed(self) -> str:
        """The seed of all random numbers, as text; ``?`` where the settings name none."""
        return text_of(self.settings.get("seed"))

    @property
    def when(self) -> datetime:
        """When the run was last written to, by the times of its files, clamped to the years 1970 to 9999."""
        there = [path for name in (CONFIG, RECORDS, SUMMARY) if (path := self.folder / name).is_file()]
        latest = max(path.stat().st_mtime for path in there)
        return datetime.fromtimestamp(min(max(latest, 0.0), LATEST))

    @property
    def finished(self) -> bool:
        """Whether all steps are made, and summary.json is written."""
        return bool(self.summary)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's: it has a config.yaml or a summary.json."""
    return any((folder / name).is_file() for name in (CONFIG, SUMMARY))


def read_run(folder: Path) -> Run:
    """Read the folder of a run.

    Raises:
        BadFile: it is not a run's, names no prompt, or one of its files cannot be read.
    """
    if not is_run(folder):
        what = f"it lacks {CONFIG}" if folder.is_dir() else "there is no such folder"
        raise BadFile(f"{folder} is not the folder of a run: {what}")
    settings = load_yaml(folder / CONFIG)
    if not isinstance(settings.get("prompt"), str):
        raise BadFile(f"{folder / CONFIG} names no prompt")
    summary, failure = (_mapping(folder / name) for name in (SUMMARY, FAILURE))
    reason = str(failure["error"] or "no reason is told") if "error" in failure else None
    return Run(folder, settings, summary, read_evaluation(folder), reason)


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The figures in evaluation.json under their present names; empty if the run has not been measured.

    Raises:
        BadFile: they cannot be read.
    """
    return renewed(_mapping(folder / EVALUATION))


def number(values: Mapping[str, Any], name: str) -> int | float | None:
    """The number under ``name``, at most 1e300 in size; None where there is none."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) <= LARGEST else None


def text_of(setting: Any) -> str:
    """A setting as text; ``?`` where there is none."""
    return "?" if setting is None else str(setting)


def name_in(setting: Any) -> str | None:
    """The name in a setting that picks a class, ``cds`` or ``{name: cds, ...}``; None where there is none."""
    name = setting.get("name") if isinstance(setting, Mapping) else setting
    return name if isinstance(name, str) else None


def _mapping(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def snapshots(folder: Path) -> dict[int, Path]:
    """The snapshots of a run: the path of each splat by its step, in the order of the steps."""
    matches = (re.fullmatch(r"step-(\d+)\.ply", path.name) for path in (folder / SNAPSHOTS).glob("step-*.ply"))
    return dict(sorted((int(match[1]), folder / SNAPSHOTS / match[0]) for match in matches if match))
