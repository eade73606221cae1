"""What to look at, and where the page is served. Nothing heavy is imported here: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gsdistill.config import bounded
from gsdistill.errors import ConfigError
from gsdistill.frames import Frame
from gsdistill.threads import Threads

__all__ = ["ViewCommand"]


@dataclass(frozen=True)
class ViewCommand(Threads):
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
