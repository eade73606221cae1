"""The ``gsdistill`` program: carries out one command line, and turns what it raises into one line.

A user's mistake is one line on stderr and exit code 2; ``--traceback`` anywhere also shows where it arose. Nothing
heavy is imported before a command needs it.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Sequence

from rich.console import Console

from gsdistill import __version__
from gsdistill.core.errors import ConfigError, Stopped, UserError, did_you_mean
from gsdistill.core.terminal import notice, notices_told, terminal
from gsdistill.settings.registry import load, names

__all__ = ["execute"]

PACKAGE = "gsdistill.cli.commands"


def execute(argv: Sequence[str]) -> int:
    """Carry out one command line.

    Returns the exit code: 0; 2 for a user's mistake; 128 + N if signal N stopped it, so 130 for Ctrl-C; 141 if the
    reader of its output is gone.
    """
    traceback = "--traceback" in argv
    words = [word for word in argv if word != "--traceback"]
    try:
        with notices_told():
            return _dispatch(words)
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Stopped) else int(signal.SIGINT)
        notice("interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}", "")
        return 128 + number
    except BrokenPipeError:  # the reader of our output is gone: what is flushed at exit must go elsewhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (UserError, OSError, MemoryError, RuntimeError) as error:
        line = _line_on(error)
        if line is None:
            raise
        if traceback:
            Console(stderr=True).print_exception()
        notice("error: ", line)
        return 2
    except SystemExit as stop:  # after the help was printed
        return int(stop.code or 0)


def _line_on(error: Exception) -> str | None:
    """What the user is told about an error; None for an error of the program itself."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):  # the file system refuses: a folder without access, a name too long
        return f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
    from gsdistill.core.device import failure, out_of_memory

    if out_of_memory(error):
        return "out of memory; ask for less at once: smaller pictures, fewer of them, or fewer Gaussians"
    if failed := failure(error):
        return f"the GPU or its driver failed: {failed}; --device cpu does without it, and `gsdistill doctor` tries it"
    return None


def _dispatch(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        _overview()
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(f"gsdistill {__version__}")
        return 0
    if words[0] not in (known := _commands()):
        kind = "flag" if words[0].startswith("-") else "command"
        raise ConfigError(f"unknown {kind} '{words[0]}'.{did_you_mean(words[0], known)} Available: {', '.join(known)}")
    load(PACKAGE, words[0], "command").carry_out(words[1:])
    return 0


def _commands() -> list[str]:
    """Names of all commands, ``generate`` first."""
    return sorted(names(PACKAGE), key=lambda name: (name != "generate", name))


def _overview() -> None:
    console = terminal(highlight=False)
    console.print("usage: gsdistill COMMAND [FLAGS]\n", markup=False)
    for name in _commands():
        help_text = inspect.getdoc(load(PACKAGE, name, "command")) or ""
        console.print(f"  {name:<10}{help_text.splitlines()[0]}", markup=False, soft_wrap=True)
    console.print("\n`gsdistill COMMAND --help` shows its flags; `--version` the version;", markup=False)
    console.print("`--traceback` with any command shows where an error arose.", markup=False)
