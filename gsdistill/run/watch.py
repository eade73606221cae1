"""What a user sees of a run: a progress bar, alarms, and a table at the end. Also the signals that stop a run."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from gsdistill.core.errors import Stopped
from gsdistill.core.structs import Gaussians
from gsdistill.evaluation.figures import headline
from gsdistill.run.read import SPLAT, read_evaluation
from gsdistill.training.distiller import Distiller, Step
from gsdistill.training.health import Counts, Health, alarms, measure
from gsdistill.training.listener import Listener

__all__ = ["Halt", "Interrupt", "StepBar", "Watch", "print_summary"]

FILES = (SPLAT, "views.png", "turntable.mp4", "report.html")
_ENDS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # Windows lacks the third, the other systems the fourth
SIGNALS = tuple(getattr(signal, name) for name in _ENDS if hasattr(signal, name))
_LOSS_EVERY = 5  # steps between readings of the loss, for each waits until the accelerator has computed it


class StepBar(Listener):
    """A progress bar over the steps of a run, with speed, remaining time, Gaussians and loss.

    If the output is not a terminal (a log file, for example), it prints a plain line after every tenth of the steps
    instead, with speed and remaining time measured since the previous line.
    """

    def __init__(self, console: Console, total: int, done: int) -> None:
        self._console, self._total, self._last = console, total, done
        self._moves, self._since = console.is_terminal or console.is_jupyter, time.perf_counter()
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"),
            TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[state]}"),
        )  # fmt: skip
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task("distilling", total=total, completed=done, speed="", state="")

    def __enter__(self) -> StepBar:
        if self._moves:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._halt()

    def on_step(self, step: Step, run: Distiller) -> None:
        """Advance the bar to the step, or print its line."""
        if not self._moves:
            self._log(step)
            return
        speed = self._progress.tasks[0].speed
        shown: dict[str, Any] = {"speed": f"{speed:.1f} it/s"} if speed else {}
        if step.number % _LOSS_EVERY == 0:
            shown["state"] = f"{step.count} Gaussians, loss {float(step.loss):.4g}"
        self._progress.update(self._task, completed=step.number, **shown)

    def on_end(self, run: Distiller) -> None:
        """Stop the bar, so that later lines are printed below it."""
        self._halt()

    def _halt(self) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def _log(self, step: Step) -> None:
        if 10 * step.number // self._total == 10 * self._last // self._total:
            return
        now = time.perf_counter()
        speed = (step.number - self._last) / max(now - self._since, 1e-9)
        left = f", {(self._total - step.number) / speed:.0f} s left" if step.number < self._total else ""
        self._console.print(
            f"step {step.number} of {self._total}, {100 * step.number // self._total} %, {speed:.1f} it/s{left}, "
            f"{step.count:,} Gaussians, loss {float(step.loss):.4g}",
            soft_wrap=True,
            highlight=False,
        )
        self._last, self._since = step.number, now


class Watch(Listener):
    """Measures the health of a run's scene after every ``every`` steps, and prints each kind of alarm once.

    The first and the last step are measured too. After a measured step ``record`` holds its figures for the listeners
    that write them; after any other it is None. Once a step was skipped, the model is searched for the cause.
    """

    record: dict[str, Any] | None = None

    def __init__(self, initial: Gaussians, console: Console, every: int) -> None:
        self._first, self._console, self._every = measure(initial), console, every
        self._shown: set[str] = set()
        self._fault: str | None = None

    def on_step(self, step: Step, run: Distiller) -> None:
        """Measure the step if it is due."""
        due = run.over or step.number == 1 or step.number % self._every == 0
        self.record = self._figures(step, run) if due else None

    def _figures(self, step: Step, run: Distiller) -> dict[str, Any]:
        """The record of a step: its number, the seconds of all steps so far, the loss, the method's figures, health."""
        seconds, (health, _) = sum(run.clock.seconds.values()), self.look(run)
        own = {name: getattr(health, name) for name in ("extent", "coverage", "saturation")}
        values = {name: float(value) for name, value in {"loss": step.loss, **step.figures, **own}.items()}
        sound = {name: round(value, 6) if math.isfinite(value) else None for name, value in values.items()}
        facts = {"step": step.number, "gaussians": step.count, "finite": bool(step.finite)}
        return {**facts, "seconds": round(seconds, 3), **sound}

    def look(self, run: Distiller, final: Gaussians | None = None) -> tuple[Health, list[str]]:
        """Measure the scene's health and print new alarms; returns the health and all alarms. Waits for an accelerator.

        ``final`` is the scene after the cut at the run's end; what the cut removed counts as pruned.
        """
        scene = run.representation
        left = scene.splat() if final is None else final
        counts = Counts(run.done, run.skipped, scene.grown, scene.pruned + len(scene) - len(left))
        health = measure(left, self._first, counts)
        if "skipped" in alarms(health, self._first) and "skipped" not in self._shown:
            self._fault = run.fault()
        raised = alarms(health, self._first, self._fault)
        for kind in raised.keys() - self._shown:
            self._console.print(Text(f"step {run.done}: {raised[kind]}", style="yellow"), soft_wrap=True)
        self._shown |= raised.keys()
        return health, list(raised.values())


class Interrupt:
    """Within the block, Ctrl-C, SIGTERM, SIGHUP and SIGBREAK end the run by :class:`Stopped`, after a whole step.

    While ``patient`` is set (during the steps of a run), the first signal only sets ``asked`` and prints a line; the
    second one raises Stopped at once. A signal that is ignored already (SIGHUP under nohup) stays ignored. Only the
    main thread receives signals, so in any other thread the block changes nothing.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self.patient, self.asked = True, False
        self._number = signal.SIGINT

    @property
    def stopped(self) -> Stopped:
        """The exception to raise once all is saved."""
        return Stopped(self._number)

    def __enter__(self) -> Interrupt:
        hears = threading.current_thread() is threading.main_thread()
        heard = [number for number in SIGNALS if hears and signal.getsignal(number) is not signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._ask) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._number = signal.Signals(number)
        if self.asked or not self.patient:
            raise self.stopped
        self.asked = True
        try:
            self._console.print("stopping after this step; Ctrl-C again stops at once, at the last checkpoint")
        except OSError:  # the terminal is gone: what is printed from now on is dropped
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, 2):
                os.dup2(nowhere, stream)
        except RuntimeError:  # the signal came while this stream was being written
            return


class Halt(Listener):
    """Stops a run after the step during which a signal came; see :class:`Interrupt`."""

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt

    def on_step(self, step: Step, run: Distiller) -> None:
        """Stop the run if a signal asks for it."""
        if self._interrupt.asked:
            run.stop()

    def on_end(self, run: Distiller) -> None:
        """Let signals raise at once, since no step is running any more."""
        self._interrupt.patient = False


def print_summary(console: Console, folder: Path, summary: Mapping[str, Any]) -> None:
    """Print the time of each phase, the figures that were measured, and the paths of the files."""
    table = Table("phase", "ms per step", "share", title="time of a step")
    phases = summary["milliseconds_per_step"]
    total = sum(phases.values())
    for name, value in phases.items():
        table.add_row(name, f"{value:.1f}", f"{100 * value / total:.0f} %")
    table.add_row("all", f"{total:.1f}", f"{summary['iterations_per_second']:.1f} it/s")
    console.print(table)
    memory = f", peak memory {summary['peak_memory_mb']} MB" if summary["peak_memory_mb"] else ""
    console.print(
        f"{summary['iterations']} steps in {summary['seconds']:.1f} s with files, "
        f"{summary['network_evaluations']} network evaluations, {summary['gaussians']} Gaussians{memory}"
    )
    health = summary["health"]
    console.print(
        f"steps skipped {summary['skipped_steps']}, Gaussians pruned {health['pruned']} "
        f"({100 * health['pruned_share']:.0f} %), extent {health['extent']:.2f} ({health['drift']:.2f} of the "
        f"start's), saturation {health['saturation']:.2f}"
    )
    if line := headline(read_evaluation(folder)):
        console.print(Text(line), soft_wrap=True)
    shown = [path for name in FILES if (path := folder / name).exists()]
    console.print(Text("\n".join(map(str, shown))), soft_wrap=True)
