"""``gsdistill export``: a splat to a file of another format or in other axes, or to a mesh."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from gsdistill.config import to_dict
from gsdistill.errors import ConfigError
from gsdistill.export.settings import ExportSettings, extensions
from gsdistill.files import check_targets
from gsdistill.frames import Frame
from gsdistill.mesh.settings import MeshSettings
from gsdistill.threads import Threads

if TYPE_CHECKING:
    from rich.console import Console

    from gsdistill.export.base import Writer
    from gsdistill.structs import Gaussians

__all__ = ["Conversion", "ExportCommand", "export", "read_source", "write_splat"]


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


@dataclass(frozen=True, kw_only=True)
class ExportCommand(Conversion):
    """Write a splat in another format or other axes, or as a mesh; the extension of the target says which format."""

    mesh: bool = False  # Write a mesh in place of a splat: .glb or .obj.
    meshing: MeshSettings = field(default_factory=MeshSettings)

    def __post_init__(self) -> None:
        unused = [name for name, value in to_dict(self.meshing).items() if value != to_dict(MeshSettings())[name]]
        if unused and not self.mesh:
            raise ConfigError(f"meshing.{unused[0]} is for meshes: add --mesh")
        if self.mesh and self.sh_pad:
            raise ConfigError(f"sh_pad = {self.sh_pad}: a mesh has no view-dependent colour")


def export(command: ExportCommand, console: Console) -> None:
    """Read the source and write the target.

    Raises:
        UserError: the source is no splat, the format is unknown or cannot be written, or a file exists.
    """
    writer = None if command.mesh else _splat_writer(command)
    targets = _targets(command)
    check_targets(targets, command.overwrite)
    gaussians = read_source(command.source, command.from_frame, command.clean, console)
    if writer:
        write_splat(gaussians, writer, command.target, console)
        return
    told = _write_mesh(gaussians, command)
    size = sum(path.stat().st_size for path in targets)
    console.print(Text(f"{', '.join(map(str, targets))}: {told}, {size:,} bytes"), soft_wrap=True)


def write_splat(gaussians: Gaussians, writer: Writer, target: Path, console: Console) -> None:
    """Write the file, and tell what it is and what it does not hold.

    Raises:
        UserError: as the writer's ``write``.
    """
    notes = writer.write(gaussians, target)
    size = target.stat().st_size
    told = f"{target}: {len(gaussians):,} Gaussians, frame {writer.axes}, {size:,} bytes"
    for line in (told, *(f"{target}: {note}" for note in notes)):
        console.print(Text(line), soft_wrap=True)


def _splat_writer(command: ExportCommand) -> Writer:
    from gsdistill.export.formats import writer_for

    if command.target.suffix.lower() == ".obj":
        raise ConfigError(f"'{command.target}' can only be a mesh: add --mesh. Splats: {', '.join(extensions())}")
    return writer_for(command.target, command)


def _targets(command: ExportCommand) -> tuple[Path, ...]:
    """All files that will be written."""
    if not command.mesh:
        return (command.target,)
    from gsdistill.mesh.write import check, companions

    check(command.target)
    return (command.target, *companions(command.target, command.meshing))


def read_source(
    source: Path, frame: Frame | None, clean: bool, console: Console, flag: str = "--from-frame", alone: bool = True
) -> Gaussians:
    """Read a splat into our world's axes, and say so where its axes are taken for granted; ``flag`` tells them.

    Of a file that is not ``alone`` the axes that it names come before ``frame``, which is for the others then.

    Raises:
        BadFile: it is none, its axes are not ``frame``, or some of it is not sound and ``clean`` is not set.
    """
    from gsdistill.scene.read import open_splat

    found = open_splat(source)
    line = found.granted(frame, flag)
    if frame and found.named not in (None, frame) and not alone:
        line = f"{found.path} names its axes: {found.named}; {flag} {frame} is for the others"
        frame = found.named
    if line:
        console.print(Text(line), soft_wrap=True)
    return found.in_world(frame, clean)


def _write_mesh(gaussians: Gaussians, command: ExportCommand) -> str:
    from gsdistill.mesh.write import write_mesh

    found = write_mesh(gaussians, command.target, command.meshing, command.frame)
    closed = "watertight" if found.watertight else "NOT watertight"
    parts = f"{found.parts} part{'s' * (found.parts != 1)}"
    return f"{found.faces:,} triangles, {closed}, {parts}, area {found.area:.3g}, volume {found.volume:.3g}"
