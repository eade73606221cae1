"""What the commands of the pages take. Nothing heavy is imported here: the command line reads it for its help."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gsdistill.threads import Threads

__all__ = ["GalleryCommand", "ReportCommand"]


@dataclass(frozen=True)
class GalleryCommand(Threads):
    """Make a page of all runs below a folder: they turn under the pointer, and are sorted by any figure."""

    folder: Path = field(metadata={"positional": True})  # A folder such as outputs; runs in it are found at any depth.
    output: Path | None = None  # Write the page to this file; none: gallery.html in the folder.
    title: str | None = None  # The title of the page; none: the name of the folder.


@dataclass(frozen=True)
class ReportCommand(Threads):
    """Write the report of a run, finished or stopped, once more: report.html, one file that needs nothing else."""

    run: Path = field(metadata={"positional": True})  # The folder of the run.
    # Measure the run against the truth if it has no figures yet and its prompt is of the shapes world.
    evaluate: bool = True
