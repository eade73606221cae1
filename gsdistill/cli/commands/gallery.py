"""``gsdistill gallery``: a page of all runs below a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from gsdistill.cli.commands.base import PlainCommand
from gsdistill.core.threads import Threads

__all__ = ["Gallery"]


@dataclass(frozen=True)
class Gallery(Threads, PlainCommand):
    """Make a page of all runs below a folder: they turn under the pointer, and are sorted by any figure."""

    folder: Path = field(metadata={"positional": True})  # A folder such as outputs; runs in it are found at any depth.
    output: Path | None = None  # Write the page to this file; none: gallery.html in the folder.
    title: str | None = None  # The title of the page; none: the name of the folder.

    def perform(self, console: Console) -> None:
        """Write the page."""
        from gsdistill.pages.gallery import write_gallery

        write_gallery(self.folder, console, self.output, self.title)
