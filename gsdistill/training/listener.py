"""Listeners are called after each step of a run: progress bars, logs, checkpoints, pages, and users' own classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gsdistill.core.device import failure, out_of_memory
from gsdistill.core.errors import UserError, first_line

if TYPE_CHECKING:
    from gsdistill.training.distiller import Distiller, Step

__all__ = ["Listener", "ListenerFailed", "blame"]


class ListenerFailed(UserError):
    """A listener raised an error; the message names the listener. The run itself is sound."""


class Listener:
    """The base of listeners; a subclass overrides the methods that it needs.

    :meth:`gsdistill.training.distiller.Distiller.run` takes any number of listeners, and calls them in their order.
    An error of a listener ends the run as an error in a step does, and then ``on_end`` is not called.
    """

    def on_step(self, step: Step, run: Distiller) -> None:
        """Called after every step; ``run.over`` is true after the last one, and ``run.stop()`` ends the run here."""

    def on_end(self, run: Distiller) -> None:
        """Called once after the last step, or after the step in which ``run.stop()`` was called."""


@contextmanager
def blame(listener: Listener, done: int) -> Iterator[None]:
    """Name ``listener`` as the cause of an error in the block, after ``done`` steps.

    A UserError, an OSError, and an error of memory or of the device say enough, and pass unchanged.

    Raises:
        ListenerFailed: any other error.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (UserError, OSError)) or out_of_memory(error) or failure(error):
            raise
        kind, reason = type(listener), f"{type(error).__name__}: {first_line(error)}"
        raise ListenerFailed(
            f"the listener {kind.__module__}.{kind.__qualname__} failed after step {done}, {reason}"
        ) from error
