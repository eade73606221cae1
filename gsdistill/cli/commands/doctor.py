"""``gsdistill doctor``: what is installed and at hand, of one model too, and a short run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gsdistill.cli.commands.base import Command, read_command
from gsdistill.core.errors import ConfigError, UserError
from gsdistill.core.terminal import terminal
from gsdistill.disk.paths import may_be_path

__all__ = ["Doctor"]


@dataclass(frozen=True)
class Doctor(Command):
    """Show what is installed, which device serves, which models are at hand, and how to get what is missing."""

    prior: str | None = field(default=None, metadata=may_be_path())  # Look at one prior, named as for `generate`.
    run: bool = False  # Make a short run, of about 20 seconds, and compare its figures with expected ones.

    def __post_init__(self) -> None:
        if self.run and self.prior:
            raise ConfigError("--run tries the shapes prior, and --prior only looks at one: take one of both")

    @classmethod
    def carry_out(cls, argv: Sequence[str]) -> None:
        """Do what the words after the command's name ask for. Raises UserError."""
        command = read_command(cls, argv)
        from gsdistill.doctor.machine import findings, report

        if command.prior is not None:
            from gsdistill.doctor.model import prior_findings

            report(terminal(highlight=False), prior_findings(command.prior))
        elif command.run:
            from gsdistill.doctor.selftest import selftest

            if failed := report(terminal(highlight=False), selftest(), "failed"):
                raise UserError(f"the self-test failed: {failed[0].name}")
        else:
            report(terminal(highlight=False), findings())
