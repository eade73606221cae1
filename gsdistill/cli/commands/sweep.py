"""``gsdistill sweep``: methods x prompts x seeds, and their comparison."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from gsdistill.cli.commands.base import PlainCommand
from gsdistill.sweep.settings import SweepSettings

__all__ = ["Sweep"]


@dataclass(frozen=True)
class Sweep(SweepSettings, PlainCommand):
    """Run methods x prompts x seeds and compare them in one table, a figure and a sheet.

    Finished runs are kept: the same command goes on where an earlier one stopped, and two at once share the work. With
    the shapes prior the truth of a prompt is known, and splats are measured against it. Other priors take any prompt,
    and figures that need the truth stay empty.
    """

    def perform(self, console: Console) -> None:
        """Make the runs that are missing, and compare all."""
        from gsdistill.sweep.report import report
        from gsdistill.sweep.run import carry_out

        if self.run:
            carry_out(self, console)
        report(self, console)
