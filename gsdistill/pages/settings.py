"""What the commands of the pages take. Nothing heavy is imported here: the command line reads it for its help."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gsdistill.threads import Threads

__all__ = ["GalleryCommand", "ReportCommand"]


@dataclass(frozen=True)
class GalleryCommand(Threads):
    """Make a page of all runs below a folder: they turn under the pointer, and are sorted by any figure."""

    folder: Path = field(metadata={"positional": True})  # such as outputs; a run in it is found at any depth
    output: Path | None = None  # the page; none: gallery.html in the folder
    title: str | None = None  # of the page; none: the name of the folder


@dataclass(frozen=True)
class ReportCommand(Threads):
    """Write the report of a run, finished or stopped, once more: report.html, one file that needs nothing else."""

    run: Path = field(metadata={"positional": True})  # the folder of a run
    evaluate: bool = True  # measure against the truth what has no figures yet, where the prompt is of the shapes world
