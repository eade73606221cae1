"""The errors that a user can cause. Each message names the thing, the value, what is allowed and what to do.

The command line prints the message on one line and exits with code 2. A user should see no other error of ours.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Sequence

__all__ = [
    "BadFile",
    "ConfigError",
    "ModelNotFound",
    "NotInstalled",
    "Notice",
    "OutOfMemory",
    "OutputError",
    "PromptError",
    "Stopped",
    "UserError",
    "did_you_mean",
    "few",
    "first_line",
    "tell",
]


class UserError(ValueError):
    """Base of every error that a user can cause and mend."""


class ConfigError(UserError):
    """A setting is unknown, of the wrong type or out of its range."""


class PromptError(UserError):
    """A prompt that the chosen prior cannot serve."""


class ModelNotFound(UserError):
    """Weights or a part of a model are missing."""


class NotInstalled(UserError):
    """A package that only some commands need is missing."""


class BadFile(UserError):
    """A file exists but is not what it claims to be, or is broken."""


class OutputError(UserError):
    """A folder or file cannot be written, or already holds something."""


class OutOfMemory(UserError):
    """The machine or its GPU has less memory than the settings need."""


class Notice(UserWarning):
    """A warning for the user, about something that is accepted; the command line prints each once, in one line."""


class Stopped(KeyboardInterrupt):
    """A signal has asked the process to end; ``number`` is the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def did_you_mean(value: str, allowed: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest of ``allowed``, ignoring case; an empty text if none is near."""
    by_lower = {name.lower(): name for name in allowed}
    near = difflib.get_close_matches(value.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean '{by_lower[near[0]]}'?" if near else ""


def few(names: Sequence[str], most: int = 3) -> str:
    """Return the first names, at most so many, and how many more there are: ``a, b, c and 2 more``."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error message, or the error's name if the message is empty.

    If the line ends with a colon, the next one is added. A KeyError, whose message is the key, becomes a sentence.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, KeyError) and " " not in lines[0]:
        return f"there is no {lines[0]}"
    return " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])


def tell(line: str) -> None:
    """Warn the user by a :class:`Notice` of one line."""
    warnings.warn(line, Notice, stacklevel=3)
