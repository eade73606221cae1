"""A page that shows a run while it optimises, at the cost of a few hundredths of the run's time.

While someone looks, the training loop hands over splats, and the stage's thread sends them. Both measure the time that
this takes, and the next picture waits until their share of the time is below SHARE.

What torch computes in several threads is computed in the loop's thread. A second Python thread would get OpenMP threads
of its own, and with more of them than processors libgomp lets all of them sleep while they wait. A step on two
processors then takes 1.2 to 1.4 times as long.
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

SHARE = 0.02  # of the run's time, for drawing
EVERY = 0.5  # least seconds between two pictures


class LiveView(Listener):
    """A page that shows a run; it is served from the beginning of a ``with`` block to its end."""

    def __init__(self, total: int, port: int, console: Console) -> None:
        """Prepare a page for a run of ``total`` steps; only this machine can open it.

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
        """Keep a copy of the splat for the page, unless nobody looks or the last picture is too recent."""
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
