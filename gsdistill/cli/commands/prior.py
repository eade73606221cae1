"""``gsdistill prior``: a model's folder with its network in eight bits, or back in float16 for other programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from gsdistill.cli.commands.base import PlainCommand
from gsdistill.disk.paths import may_be_path

__all__ = ["Prior"]


@dataclass(frozen=True)
class Prior(PlainCommand):
    """Copy a prior's folder: `unpack` writes plain float16, which diffusers loads, `pack` eight bits, half as large."""

    action: Literal["unpack", "pack"] = field(metadata={"positional": True})  # unpack: plain float16; pack: eight bits.
    source: str = field(metadata={"positional": True, **may_be_path()})  # A prior, named as for `generate`.
    target: Path = field(metadata={"positional": True})  # The folder to write, which must not exist.

    def perform(self, console: Console) -> None:
        """Write the folder. Raises UserError where the prior is not on this machine, or the folder exists."""
        from gsdistill.models.eight_bits import convert_folder
        from gsdistill.models.locate import locate_model
        from gsdistill.models.settings import ModelSettings

        source, _ = locate_model(self.source, ModelSettings(), half=True)
        size = convert_folder(source, self.target, packed=self.action == "pack")
        console.print(Text(f"{self.target}: {size:,} bytes"), soft_wrap=True)
