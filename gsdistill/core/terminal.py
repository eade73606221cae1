"""What commands print on: text of a file or of a model is shown on the terminal, and never commands it.

Terminals obey what stands between the letters: a name with an escape sequence can clear the screen, rename the window
or write into what is pasted next, and one with an override of Unicode shows its letters in another order.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.text import Text

from gsdistill.core.errors import Notice

__all__ = ["notice", "notices_told", "printable", "terminal"]


def terminal(stderr: bool = False, highlight: bool = True) -> Console:
    """A console of rich whose own control sequences, of colours and of bars, are the only ones that leave it."""
    console = _Terminal(stderr=stderr, highlight=highlight)
    console.push_render_hook(_Hook())
    return console


def notice(label: str, message: str) -> None:
    """Print one line on stderr; what a user typed is no markup."""
    line = " ".join(message.split())
    terminal(stderr=True, highlight=False).print(
        Text(label, style="bold red").append(line, style="default"), soft_wrap=True
    )


@contextmanager
def notices_told() -> Iterator[None]:
    """Print each :class:`Notice` once, as one line, whatever the filters are; warnings of others stay theirs."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
            if issubclass(category, Notice):
                notice("warning: ", str(message))
            else:
                others(message, category, *place)

        warnings.showwarning = show
        warnings.simplefilter("default", Notice)
        yield


def printable(text: str, encoding: str = "utf-8") -> str:
    """The text with line ends as they are, and all else that does not print as it would stand in a Python string."""
    plain = "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)
    return plain.encode(encoding, "backslashreplace").decode(encoding)


class _Terminal(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command line, which ends as other programs do whose reader has left; rich would exit."""
        raise BrokenPipeError


class _Hook(RenderHook):
    """Wraps what is printed."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Plain(one) for one in renderables]


class _Plain:
    """Something to print, whose text is printable once it is laid out."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._segments(console, options)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._inner)

    def _segments(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for text, style, control in console.render(self._inner, options):
            yield Segment(text if control else printable(text, console.encoding), style, control)
