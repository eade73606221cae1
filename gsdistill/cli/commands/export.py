"""``gsdistill export``: a splat to a file of another format or in other axes, or to a mesh."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from gsdistill.cli.commands.base import PlainCommand
from gsdistill.cli.conversion import Conversion, read_source, write_splat
from gsdistill.core.errors import ConfigError
from gsdistill.disk.write import check_targets
from gsdistill.export.settings import extensions
from gsdistill.mesh.settings import MeshSettings
from gsdistill.settings.config import to_dict

if TYPE_CHECKING:
    from rich.console import Console

    from gsdistill.core.structs import Gaussians
    from gsdistill.export.base import Writer

__all__ = ["Export"]


@dataclass(frozen=True, kw_only=True)
class Export(Conversion, PlainCommand):
    """Write a splat in another format or other axes, or as a mesh; the extension of the target says which format."""

    mesh: bool = False  # Write a mesh in place of a splat: .glb or .obj.
    meshing: MeshSettings = field(default_factory=MeshSettings)

    def __post_init__(self) -> None:
        unused = [name for name, value in to_dict(self.meshing).items() if value != to_dict(MeshSettings())[name]]
        if unused and not self.mesh:
            raise ConfigError(f"meshing.{unused[0]} is for meshes: add --mesh")
        if self.mesh and self.sh_pad:
            raise ConfigError(f"sh_pad = {self.sh_pad}: a mesh has no view-dependent colour")

    def perform(self, console: Console) -> None:
        """Read the source and write the target.

        Raises:
            UserError: the source is not a splat, the format is unknown or cannot be written, or a file exists.
        """
        writer = None if self.mesh else _splat_writer(self)
        targets = _targets(self)
        check_targets(targets, self.overwrite)
        gaussians = read_source(self.source, self.from_frame, self.clean, console)
        if writer:
            write_splat(gaussians, writer, self.target, console)
            return
        summary = _write_mesh(gaussians, self)
        size = sum(path.stat().st_size for path in targets)
        console.print(Text(f"{', '.join(map(str, targets))}: {summary}, {size:,} bytes"), soft_wrap=True)


def _splat_writer(command: Export) -> Writer:
    from gsdistill.export.formats import writer_for

    if command.target.suffix.lower() == ".obj":
        raise ConfigError(f"'{command.target}' can only be a mesh: add --mesh. Splats: {', '.join(extensions())}")
    return writer_for(command.target, command)


def _targets(command: Export) -> tuple[Path, ...]:
    """The paths of all files that will be written; refuses a target that can be no mesh with --mesh."""
    if not command.mesh:
        return (command.target,)
    from gsdistill.mesh.write import check, companions

    check(command.target)
    return (command.target, *companions(command.target, command.meshing))


def _write_mesh(gaussians: Gaussians, command: Export) -> str:
    from gsdistill.mesh.write import write_mesh

    mesh = write_mesh(gaussians, command.target, command.meshing, command.frame)
    closed = "watertight" if mesh.watertight else "NOT watertight"
    parts = f"{mesh.parts} part{'s' * (mesh.parts != 1)}"
    return f"{mesh.faces:,} triangles, {closed}, {parts}, area {mesh.area:.3g}, volume {mesh.volume:.3g}"
