"""What is told of the steps of a run: bars, logs, checkpoints, pages, and anybody's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gsdistill.core.device import failure, out_of_memory
from gsdistill.core.errors import UserError, first_line

if TYPE_CHECKING:
    from gsdistill.training.distiller import Distiller, Step

__all__ = ["Listener", "ListenerFailed", "named"]


class ListenerFailed(UserError):
    """Something that was told of a step broke, and is named; the steps themselves are sound."""


class Listener:
    """What a run tells of its steps. One's own overrides what it wants to hear of.

    :meth:`gsdistill.training.distiller.Distiller.run` takes any number of listeners, and calls them in their order.
    An error of a listener ends the run as one in a step does, and no listener hears of an end.
    """

    def on_step(self, step: Step, run: Distiller) -> None:
        """After every step; ``run.over`` is true in the last one, and ``run.stop()`` makes this the last one."""

    def on_end(self, run: Distiller) -> None:
        """Once no step is left, or after the one in which a stop was asked for."""


@contextmanager
def named(listener: Listener, done: int) -> Iterator[None]:
    """Say of an error in the block, after ``done`` steps, whose it is, unless it is of a kind that says enough.

    Raises:
        ListenerFailed: such an error.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (UserError, OSError)) or out_of_memory(error) or failure(error):
            raise
        kind = type(listener)
        said = f"{type(error).__name__}: {first_line(error)}"
        raise ListenerFailed(
            f"the listener {kind.__module__}.{kind.__qualname__} failed after step {done}, {said}"
        ) from error
