"""``gsdistill export``: a splat to a file of another format or in other axes, or to a mesh."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from gsdistill.errors import ConfigError, OutputError
from gsdistill.export.settings import ExportSettings, extensions
from gsdistill.frames import Frame
from gsdistill.mesh.settings import MeshSettings

if TYPE_CHECKING:
    from rich.console import Console

    from gsdistill.structs import Gaussians

__all__ = ["ExportCommand", "export"]


@dataclass(frozen=True, kw_only=True)
class ExportCommand(ExportSettings):
    """Write a splat in another format or other axes, or as a mesh; the extension of the target says which format."""

    source: Path = field(metadata={"positional": True})  # a splat, .ply, or the folder of a run
    target: Path = field(metadata={"positional": True})  # the file to write: `gsdistill list formats`, .glb or .obj
    # axes of a source that does not name them: rdf (y down, as most splats), y-up, z-up, unity or world; none: world
    from_frame: Frame | None = None
    mesh: bool = False  # a mesh in place of a splat: .glb or .obj
    meshing: MeshSettings = field(default_factory=MeshSettings)
    overwrite: bool = False  # replace files that are there


def export(command: ExportCommand, console: Console) -> None:
    """Read the source and write the target.

    Raises:
        UserError: the source is no splat, the format is unknown or cannot be written, or a file exists.
    """
    from gsdistill.scene.ply import read_ply

    source = command.source / "gaussians.ply" if command.source.is_dir() else command.source
    if command.mesh:
        from gsdistill.mesh.write import check, companions

        check(command.target)
        targets = (command.target, *companions(command.target, command.meshing))
    else:
        _check_splat(command)
        targets = (command.target,)
    there = [path for path in targets if path.exists()]
    if there and not command.overwrite:
        raise OutputError(f"{there[0]} exists; choose another name, or replace it with --overwrite")
    gaussians = read_ply(source, command.from_frame)
    told = _write_mesh(gaussians, command) if command.mesh else _write_splat(gaussians, command)
    size = sum(path.stat().st_size for path in targets)
    console.print(Text(f"{', '.join(map(str, targets))}: {told}, {size:,} bytes"), soft_wrap=True)


def _check_splat(command: ExportCommand) -> None:
    from gsdistill.export.formats import writer_for

    if command.target.suffix.lower() == ".obj":
        raise ConfigError(f"'{command.target}' can only be a mesh: add --mesh. Splats: {', '.join(extensions())}")
    writer_for(command.target, command)


def _write_splat(gaussians: Gaussians, command: ExportCommand) -> str:
    from gsdistill.export.formats import writer_for

    writer = writer_for(command.target, command)
    writer.write(gaussians, command.target)
    return f"{len(gaussians):,} Gaussians, frame {writer.axes}"


def _write_mesh(gaussians: Gaussians, command: ExportCommand) -> str:
    from gsdistill.mesh.write import write_mesh

    found = write_mesh(gaussians, command.target, command.meshing, command.frame)
    closed = "watertight" if found.watertight else "NOT watertight"
    parts = f"{found.parts} part{'s' * (found.parts != 1)}"
    return f"{found.faces:,} triangles, {closed}, {parts}, area {found.area:.3g}, volume {found.volume:.3g}"
