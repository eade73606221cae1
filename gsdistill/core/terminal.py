"""The consoles that commands print on. Text from files and models is shown, but cannot control the terminal.

Terminals obey control sequences in what they print: a file name with an escape sequence can clear the screen, rename
the window or change the clipboard, and one with Unicode's direction marks shows its letters in another order.
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
    """A console of rich that lets only rich's own control sequences through, those of colours and bars."""
    console = _Terminal(stderr=stderr, highlight=highlight)
    console.push_render_hook(_Hook())
    return console


def notice(label: str, message: str) -> None:
    """Print one line on stderr; nothing in ``message`` is read as rich's markup."""
    line = " ".join(message.split())
    terminal(stderr=True, highlight=False).print(
        Text(label, style="bold red").append(line, style="default"), soft_wrap=True
    )


@contextmanager
def notices_told() -> Iterator[None]:
    """In the block, print each :class:`Notice` once, in one line, whatever the filters; other warnings stay."""
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
    """The text with unprintable characters other than line feeds as escapes, and those not in ``encoding`` too."""
    plain = "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)
    return plain.encode(encoding, "backslashreplace").decode(encoding)


class _Terminal(Console):
    def on_broken_pipe(self) -> None:
        """Raise, so that the command line ends as other programs do whose reader is gone; rich would exit itself."""
        raise BrokenPipeError


class _Hook(RenderHook):
    """Wraps everything that is printed in :class:`_Plain`."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Plain(one) for one in renderables]


class _Plain:
    """A renderable whose text is made printable after rich has laid it out."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for text, style, control in console.render(self._inner, options):
            yield Segment(text if control else printable(text, console.encoding), style, control)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._inner)
