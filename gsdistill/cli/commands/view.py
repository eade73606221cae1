"""``gsdistill view``: splats and runs on one page, until Ctrl-C."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from gsdistill.cli.commands.base import PlainCommand
from gsdistill.core.errors import ConfigError
from gsdistill.core.frames import Frame
from gsdistill.core.ranges import bounded
from gsdistill.core.threads import Threads

__all__ = ["View"]


@dataclass(frozen=True)
class View(Threads, PlainCommand):
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

    def perform(self, console: Console) -> None:
        """Serve the page until Ctrl-C."""
        from gsdistill.viewer.command import view

        view(self.sources, self.frame, self.clean, (self.host, self.port), self.open, console)
