"""The contract of a writer: Gaussians to one file of one format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from gsdistill.structs import Gaussians

__all__ = ["Writer"]


class Writer(ABC):
    """Settings of one format; subclasses are final frozen dataclasses."""

    extension: ClassVar[str]  # of the files, with the dot

    @abstractmethod
    def write(self, gaussians: Gaussians, path: Path | str) -> None:
        """Write the Gaussians to ``path``, in one piece or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
