"""``gsdistill doctor``: what is installed and at hand, of one model too, and a short run."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console

from gsdistill.cli.commands.base import PlainCommand
from gsdistill.core.errors import ConfigError, UserError
from gsdistill.disk.paths import may_be_path

__all__ = ["Doctor"]


@dataclass(frozen=True)
class Doctor(PlainCommand):
    """Show what is installed, which device serves, which models are at hand, and how to get what is missing."""

    prior: str | None = field(default=None, metadata=may_be_path())  # Look at one prior, named as for `generate`.
    run: bool = False  # Make a short run, of about 20 seconds, and compare its figures with expected ones.

    def __post_init__(self) -> None:
        if self.run and self.prior:
            raise ConfigError("--run tries the shapes prior, and --prior only looks at one: take one of both")

    def perform(self, console: Console) -> None:
        """Print what is found. Raises UserError if the self-test fails."""
        from gsdistill.doctor.machine import findings, print_findings

        if self.prior is not None:
            from gsdistill.doctor.model import prior_findings

            print_findings(console, prior_findings(self.prior))
        elif self.run:
            from gsdistill.doctor.selftest import selftest

            if failed := print_findings(console, selftest(), "failed"):
                raise UserError(f"the self-test failed: {failed[0].name}")
        else:
            print_findings(console, findings())
