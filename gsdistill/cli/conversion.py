"""What the commands share that make a splat's file from another: their flags, reading and writing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from gsdistill.core.frames import Frame
from gsdistill.core.threads import Threads
from gsdistill.export.settings import ExportSettings

if TYPE_CHECKING:
    from rich.console import Console

    from gsdistill.core.structs import Gaussians
    from gsdistill.export.base import Writer

__all__ = ["Conversion", "read_source", "write_splat"]


@dataclass(frozen=True, kw_only=True)
class Conversion(ExportSettings, Threads):
    """What every command takes that makes a splat's file from another."""

    source: Path = field(metadata={"positional": True})  # A splat of any format, or the folder of a run.
    target: Path = field(metadata={"positional": True})  # The file to write: `gsdistill list formats`.
    # The axes of a source that does not name its own: rdf (y down, as most splats), y-up, z-up, unity or world; none:
    # as is usual with its format.
    from_frame: Frame | None = None
    clean: bool = False  # Leave out or mend Gaussians that are NaN, infinite or no rotation; without, they are refused.
    overwrite: bool = False  # Replace files that are there.


def write_splat(gaussians: Gaussians, writer: Writer, target: Path, console: Console) -> None:
    """Write the file, and tell what it is and what it does not hold.

    Raises:
        UserError: as the writer's ``write``.
    """
    notes = writer.write(gaussians, target)
    size = target.stat().st_size
    summary = f"{target}: {len(gaussians):,} Gaussians, frame {writer.axes}, {size:,} bytes"
    for line in (summary, *(f"{target}: {note}" for note in notes)):
        console.print(Text(line), soft_wrap=True)


def read_source(
    source: Path, frame: Frame | None, clean: bool, console: Console, flag: str = "--from-frame", alone: bool = True
) -> Gaussians:
    """Read a splat into our world's axes, and say so where its axes are taken for granted; ``flag`` tells them.

    Of a file that is not ``alone`` the axes that it names come before ``frame``, which is for the others then.

    Raises:
        BadFile: it is none, its axes are not ``frame``, or some of it is not sound and ``clean`` is not set.
    """
    from gsdistill.scene.read import open_splat

    content = open_splat(source)
    line = content.assumption(frame, flag)
    if frame and content.named not in (None, frame) and not alone:
        line = f"{content.path} names its axes: {content.named}; {flag} {frame} is for the others"
        frame = content.named
    if line:
        console.print(Text(line), soft_wrap=True)
    return content.in_world(frame, clean)
