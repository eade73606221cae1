"""A run on a page while it optimises, at the cost of a few hundredths of its time.

The loop hands over what is to be drawn, and only while someone looks; the stage's thread sends it. Both measure how
long they take, and the next picture is due when so much time has passed that they stay below SHARE of it.

What torch computes in several threads is computed in the loop's: a second Python thread would have a team of OpenMP
threads of its own, and where there are more of them than processors libgomp lets all of them wait asleep, by which a
step on two processors takes 1.2 to 1.4 times as long.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.text import Text

from gsdistill.core.extras import require
from gsdistill.training.distiller import Distiller, Step
from gsdistill.training.listener import Listener
from gsdistill.viewer.panel import Panel
from gsdistill.viewer.server import LOOPBACK, serve, stop
from gsdistill.viewer.splat import Splat
from gsdistill.viewer.stage import Picture, Stage, places, set_camera

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["LiveView"]

SHARE = 0.02  # of the time, for drawing
EVERY = 0.5  # seconds between two pictures, at least


class LiveView(Listener):
    """A page that follows a run from where the block begins to where it ends."""

    def __init__(self, total: int, port: int, console: Console) -> None:
        """Prepare a page for a run of ``total`` steps, which this machine alone can look at.

        Raises:
            NotInstalled: viser is missing.
        """
        require("viewer", "watching a run")
        self._total, self._port, self._console = total, port, console
        self._shown: tuple[Splat, Step] | None = None
        self._due = 0.0

    def __enter__(self) -> LiveView:
        self._server, url = serve(LOOPBACK, self._port, self._console)
        self._status = self._server.gui.add_markdown("waiting for the first step")
        self._stage = Stage(self._server, places(1), lambda line: self._console.print(Text(line)))
        self._panel = Panel(self._server, self._stage.change)
        set_camera(self._server, 1)
        self._stage.show(self._picture)
        self._console.print(Text(f"the run can be watched at {url}"), soft_wrap=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stage.close()
        stop(self._server)

    def on_step(self, step: Step, run: Distiller) -> None:
        """Take note of the splat: nothing, if nobody looks or the last picture is not old enough."""
        now = time.monotonic()
        if not self._stage.watched or (now < self._due and step.number < self._total):
            return
        self._shown = Splat.of(run.representation.splat()), step
        self._due = now + max(EVERY, (time.monotonic() - now + self._stage.cost) / SHARE)
        self._stage.change()

    def _picture(self) -> Picture:
        if self._shown is None:
            return Picture([None])
        splat, step = self._shown
        loss = float(step.loss)
        self._status.content = f"**step {step.number}** of {self._total}, {step.count} Gaussians, loss {loss:.4g}"
        return Picture([splat], self._panel.threshold, self._panel.size)
