"""``gsdistill export``: a splat to a file of another format or in other axes, or to a mesh."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from gsdistill.config import to_dict
from gsdistill.errors import ConfigError, OutputError
from gsdistill.export.settings import ExportSettings, extensions
from gsdistill.frames import Frame
from gsdistill.mesh.settings import MeshSettings

if TYPE_CHECKING:
    from rich.console import Console

    from gsdistill.export.base import Writer
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
    for path in targets:
        if path.is_dir():
            raise OutputError(f"{path} is a folder; choose another name")
        if path.exists() and not command.overwrite:
            raise OutputError(f"{path} exists; choose another name, or replace it with --overwrite")
    gaussians = _read(command, console)
    told = _write_splat(gaussians, writer, command.target) if writer else _write_mesh(gaussians, command)
    size = sum(path.stat().st_size for path in targets)
    console.print(Text(f"{', '.join(map(str, targets))}: {told}, {size:,} bytes"), soft_wrap=True)


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


def _read(command: ExportCommand, console: Console) -> Gaussians:
    """Read the source, and say so where its axes are taken for granted."""
    from gsdistill.scene.ply import gaussians_from, read_vertices

    vertices = read_vertices(command.source / "gaussians.ply" if command.source.is_dir() else command.source)
    if vertices.frame is None and command.from_frame is None:
        console.print(
            Text(
                f"{vertices.path} does not name its axes: taken to be in gsdistill's (z up); "
                "--from-frame rdf is for files of most other programs"
            ),
            soft_wrap=True,
        )
    return gaussians_from(vertices, command.from_frame)


def _write_splat(gaussians: Gaussians, writer: Writer, target: Path) -> str:
    writer.write(gaussians, target)
    return f"{len(gaussians):,} Gaussians, frame {writer.axes}"


def _write_mesh(gaussians: Gaussians, command: ExportCommand) -> str:
    from gsdistill.mesh.write import write_mesh

    found = write_mesh(gaussians, command.target, command.meshing, command.frame)
    closed = "watertight" if found.watertight else "NOT watertight"
    parts = f"{found.parts} part{'s' * (found.parts != 1)}"
    return f"{found.faces:,} triangles, {closed}, {parts}, area {found.area:.3g}, volume {found.volume:.3g}"
