"""What every command is: a frozen dataclass whose fields are its flags, and whose docstring is its help."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

from gsdistill.cli.flags import settings_of
from gsdistill.core.threads import Threads
from gsdistill.settings.registry import own_name

__all__ = ["Command", "read_command"]

C = TypeVar("C")


class Command(ABC):
    """A command of ``gsdistill``; the name of its module is its own."""

    @classmethod
    @abstractmethod
    def carry_out(cls, argv: Sequence[str]) -> None:
        """Do what the words after the command's name ask for. Raises UserError."""


def read_command(cls: type[C], argv: Sequence[str]) -> C:
    """Return the settings of a command that stands on its own, and compute with its number of threads from now on."""
    command = settings_of(cls, argv, prog=f"gsdistill {own_name(cls)}")
    if isinstance(command, Threads):
        command.take()
    return command
