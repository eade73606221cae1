"""``gsdistill sweep``: methods x prompts x seeds, and their comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gsdistill.cli.commands.base import Command, read_command
from gsdistill.core.terminal import terminal
from gsdistill.sweep.settings import SweepSettings

__all__ = ["Sweep"]


@dataclass(frozen=True)
class Sweep(SweepSettings, Command):
    """Run methods x prompts x seeds and compare them in one table, a figure and a sheet.

    Finished runs are kept: the same command goes on where an earlier one stopped. Two of it at once share the work.
    With the prior of the shapes world the truth of a prompt is known, and splats are measured against it; with any
    other prior any prompt goes, and what needs the truth stays empty.
    """

    @classmethod
    def carry_out(cls, argv: Sequence[str]) -> None:
        """Do what the words after the command's name ask for. Raises UserError."""
        settings = read_command(cls, argv)
        from gsdistill.sweep.report import report
        from gsdistill.sweep.run import carry_out

        if settings.run:
            carry_out(settings, terminal())
        report(settings, terminal())
