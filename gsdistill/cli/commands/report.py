"""``gsdistill report``: writes the report of a run again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.text import Text

from gsdistill.cli.commands.base import PlainCommand
from gsdistill.core.threads import Threads
from gsdistill.settings.config import defaults

__all__ = ["Report"]


@dataclass(frozen=True)
class Report(Threads, PlainCommand):
    """Write the report of a run, finished or stopped, once more: report.html, one file that needs nothing else."""

    run: Path = field(metadata={"positional": True})  # The folder of the run.
    # Measure the run against the truth if it has no figures yet and its prompt is of its prior's world.
    evaluate: bool = True

    def perform(self, console: Console) -> None:
        """Write the report, and print where it is."""
        from gsdistill.pages.report import write_report
        from gsdistill.run.config import RunConfig

        console.print(Text(str(write_report(self.run, defaults(RunConfig), self.evaluate))), soft_wrap=True)
