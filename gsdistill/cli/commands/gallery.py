"""``gsdistill gallery``: a page of all runs below a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gsdistill.cli.commands.base import Command, read_command
from gsdistill.core.terminal import terminal
from gsdistill.core.threads import Threads

__all__ = ["Gallery"]


@dataclass(frozen=True)
class Gallery(Threads, Command):
    """Make a page of all runs below a folder: they turn under the pointer, and are sorted by any figure."""

    folder: Path = field(metadata={"positional": True})  # A folder such as outputs; runs in it are found at any depth.
    output: Path | None = None  # Write the page to this file; none: gallery.html in the folder.
    title: str | None = None  # The title of the page; none: the name of the folder.

    @classmethod
    def carry_out(cls, argv: Sequence[str]) -> None:
        """Do what the words after the command's name ask for. Raises UserError."""
        command = read_command(cls, argv)
        from gsdistill.pages.gallery import write_gallery

        write_gallery(command.folder, terminal(), command.output, command.title)
