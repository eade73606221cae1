"""``gsdistill view``: splats and runs on one page, until Ctrl-C."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gsdistill.cli.commands.base import Command, read_command
from gsdistill.core.errors import ConfigError
from gsdistill.core.frames import Frame
from gsdistill.core.ranges import bounded
from gsdistill.core.terminal import terminal
from gsdistill.core.threads import Threads

__all__ = ["View"]


@dataclass(frozen=True)
class View(Threads, Command):
    """Look at splats and runs in the browser, side by side, with the steps that a run has kept."""

    # Splats of any format, and folders of runs. What has no splat is skipped beside those that have one.
    sources: tuple[Path, ...] = field(metadata={"positional": True})
    # Axes of files that do not name theirs: rdf (y down, as most splats), y-up, z-up, unity or world; none: as usual.
    frame: Frame | None = None
    clean: bool = False  # Leave out or mend Gaussians that are NaN, infinite or no rotation; without, they are refused.
    host: str = "127.0.0.1"  # Serve at this address; 0.0.0.0 lets the whole network look.
    port: int = bounded(8080, low=0, high=65535)  # Serve at this port, or the next one that is free; 0: any.
    open: bool = False  # Open the page in this machine's browser.

    def __post_init__(self) -> None:
        if not self.host.strip():
            raise ConfigError("host is empty; 127.0.0.1 serves this machine alone, 0.0.0.0 the whole network")

    @classmethod
    def carry_out(cls, argv: Sequence[str]) -> None:
        """Do what the words after the command's name ask for. Raises UserError."""
        command = read_command(cls, argv)
        from gsdistill.viewer.command import view

        view(command.sources, command.frame, command.clean, (command.host, command.port), command.open, terminal())
