"""What the folder of a run holds: whether each file is whole, how far the run came, how it differs from another's.

A draft, ``.tmp-*``, is no file yet: it may be anything while a run is at work, and must be gone once one has ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import yaml
from PIL import Image
from safetensors import safe_open

from gsdistill.scene.read import read_splat

__all__ = ["PHASES", "damaged", "differences", "drafts", "files", "phase"]

PHASES = (
    "before the run has its folder", "before the first checkpoint", "between two steps", "writing a checkpoint",
    "writing another file of a step", "writing the final files", "writing the report", "after the last file",
)  # fmt: skip
DRAFT = ".tmp-"
_OWN = {"config.yaml", "report.html"}  # these tell places and times too
_COUNTS = ("gaussians", "iterations", "network_evaluations", "skipped_steps")  # of summary.json, which has times too


def files(folder: Path) -> dict[str, Path]:
    """Every file under its name, the drafts and the lock left out."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path for path in found}


def drafts(folder: Path) -> list[str]:
    """The files that were not finished."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(f"{DRAFT}*"))


def damaged(folder: Path) -> list[str]:
    """Every file that is not what its name says, whole, and why."""
    found = []
    for name, path in files(folder).items():
        try:
            _READERS[path.suffix](path)
        except Exception as error:  # a reader may fail in any way, and each is an answer
            found.append(f"{name}: {type(error).__name__}: {error}")
    return found


def differences(folder: Path, other: Path) -> list[str]:
    """What two finished runs with the same settings do not share bit for bit, all but places and times."""
    ours, theirs = files(folder), files(other)
    told = [f"{name} is in one of them" for name in sorted(ours.keys() ^ theirs.keys())]
    for name in sorted((ours.keys() & theirs.keys()) - _OWN):
        if _timeless(ours[name]) != _timeless(theirs[name]):
            told.append(f"{name} differs")
    return told


def phase(folder: Path) -> str:
    """One of PHASES: where the run in a folder stood when it was cut off, by what it had left there."""
    there, unfinished = files(folder), drafts(folder)
    kept = any(name.endswith(".safetensors") for name in there)
    if any(name.startswith("checkpoints/") for name in unfinished):
        return PHASES[3]
    if "summary.json" in there:
        return PHASES[6] if kept else PHASES[7]
    if "gaussians.ply" in there or any(name.endswith("-gaussians.ply") for name in unfinished):
        return PHASES[5]
    if kept:
        return PHASES[4] if unfinished else PHASES[2]
    return PHASES[1] if there else PHASES[0]


def _timeless(path: Path) -> Any:
    """What does not tell of time in a file: its counts, its records without their seconds, or all of it."""
    if path.name == "summary.json":
        summary = json.loads(path.read_text(encoding="utf-8"))
        return [summary[name] for name in _COUNTS]
    if path.name == "metrics.jsonl":
        return [{key: value for key, value in record.items() if key != "seconds"} for record in _lines(path)]
    return path.read_bytes()


def _lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file, every one of which ends with a line feed."""
    text = path.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        raise ValueError("the last line has no end")
    return [json.loads(line) for line in text.splitlines()]


def _png(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
    if not path.read_bytes().endswith(b"IEND\xaeB`\x82"):
        raise ValueError("the picture has no end")


def _video(path: Path) -> None:
    frames, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
    if frames != 90:
        raise ValueError(f"{frames} frames")


def _tensors(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        json.loads(file.metadata()["gsdistill"])
        for name in file.keys():  # noqa: SIM118 - no mapping
            file.get_tensor(name)


def _settings(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n") or not {"prompt", "regularizers"} <= yaml.safe_load(text).keys():
        raise ValueError("settings are missing")


def _page(path: Path) -> None:
    if not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError("the page has no end")


_READERS: dict[str, Callable[[Path], Any]] = {
    ".ply": read_splat,
    ".png": _png,
    ".mp4": _video,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".jsonl": _lines,
    ".yaml": _settings,
    ".safetensors": _tensors,
    ".html": _page,
}
