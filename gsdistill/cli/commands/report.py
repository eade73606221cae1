"""``gsdistill report``: the report of a run, written once more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.text import Text

from gsdistill.cli.commands.base import Command, read_command
from gsdistill.core.terminal import terminal
from gsdistill.core.threads import Threads
from gsdistill.settings.config import defaults

__all__ = ["Report"]


@dataclass(frozen=True)
class Report(Threads, Command):
    """Write the report of a run, finished or stopped, once more: report.html, one file that needs nothing else."""

    run: Path = field(metadata={"positional": True})  # The folder of the run.
    # Measure the run against the truth if it has no figures yet and its prompt is of the shapes world.
    evaluate: bool = True

    @classmethod
    def carry_out(cls, argv: Sequence[str]) -> None:
        """Do what the words after the command's name ask for. Raises UserError."""
        command = read_command(cls, argv)
        from gsdistill.pages.report import write_report
        from gsdistill.run.config import RunConfig

        terminal().print(Text(str(write_report(command.run, defaults(RunConfig), command.evaluate))), soft_wrap=True)
