"""What the commands share that read a splat and write another: their flags, reading, and writing."""

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
    """The flags of every command that reads a splat and writes another."""

    source: Path = field(metadata={"positional": True})  # A splat of any format, or the folder of a run.
    target: Path = field(metadata={"positional": True})  # The file to write: `gsdistill list formats`.
    # The axes of a source that does not name its own: rdf (y down, as most splats), y-up, z-up, unity or world; none:
    # as is usual with its format.
    from_frame: Frame | None = None
    clean: bool = False  # Leave out or mend Gaussians that are NaN, infinite or no rotation; without, they are refused.
    overwrite: bool = False  # Replace files that are there.


def write_splat(gaussians: Gaussians, writer: Writer, target: Path, console: Console) -> None:
    """Write the file, and print what it is and what its format cannot hold.

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
    """Read a splat into our world's axes, and print a line where its axes are assumed.

    ``frame`` is the axes of a file that does not name its own, None for those usual with its format; ``flag`` is the
    flag that sets it, for messages. Of several files (not ``alone``) one may name axes other than ``frame``: they hold.

    Raises:
        BadFile: it is not a splat, it names axes other than ``frame``, or it holds NaN, infinities or quaternions
            without a direction and ``clean`` is not set.
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
