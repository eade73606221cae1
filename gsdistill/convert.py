"""``gsdistill export``: a splat to a file of another format or in other axes, or to a mesh."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from gsdistill.errors import OutputError
from gsdistill.export.settings import ExportSettings
from gsdistill.frames import Frame

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["ExportCommand", "export"]


@dataclass(frozen=True)
class ExportCommand(ExportSettings):
    """Write a splat in another format, or other axes; the extension of the target says which format."""

    source: Path = field(metadata={"positional": True}, kw_only=True)  # a splat, .ply, or the folder of a run
    target: Path = field(metadata={"positional": True}, kw_only=True)  # the file to write: `gsdistill list formats`
    # axes of a source that does not name them: rdf (y down, as most splats), y-up, z-up, unity or world; none: world
    from_frame: Frame | None = field(default=None, kw_only=True)
    overwrite: bool = field(default=False, kw_only=True)  # replace a file that is there


def export(command: ExportCommand, console: Console) -> None:
    """Read the source and write the target.

    Raises:
        UserError: the source is no splat, the format is unknown or cannot be written, or the target exists.
    """
    from gsdistill.export.formats import writer_for
    from gsdistill.scene.ply import read_ply

    writer = writer_for(command.target, command)
    source = command.source / "gaussians.ply" if command.source.is_dir() else command.source
    if command.target.exists() and not command.overwrite:
        raise OutputError(f"{command.target} exists; choose another name, or replace it with --overwrite")
    gaussians = read_ply(source, command.from_frame)
    writer.write(gaussians, command.target)
    size = command.target.stat().st_size
    console.print(Text(f"{command.target}: {len(gaussians)} Gaussians, frame {writer.axes}, {size:,} bytes"))
