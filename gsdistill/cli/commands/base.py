"""What every command is: a frozen dataclass whose fields are its flags, and whose docstring is its help."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from rich.console import Console

from gsdistill.cli.flags import settings_of
from gsdistill.core.terminal import terminal
from gsdistill.core.threads import Threads
from gsdistill.settings.registry import own_name

__all__ = ["Command", "PlainCommand"]


class Command(ABC):
    """A command of ``gsdistill``, named as its module is."""

    @classmethod
    @abstractmethod
    def carry_out(cls, argv: Sequence[str]) -> None:
        """Do what ``argv``, the words after the command's name, ask for.

        Raises:
            UserError: the words or what they lead to cannot be used. SystemExit: help was asked for and printed.
        """


class PlainCommand(Command):
    """A command whose flags are its own fields alone."""

    @classmethod
    def carry_out(cls, argv: Sequence[str]) -> None:
        """Read the flags, set the number of threads if there is a flag for it, and perform the command."""
        command = settings_of(cls, argv, prog=f"gsdistill {own_name(cls)}")
        if isinstance(command, Threads):
            command.take()
        command.perform(terminal())

    @abstractmethod
    def perform(self, console: Console) -> None:
        """Do what the fields say, and print to ``console``. Raises UserError."""
