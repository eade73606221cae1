"""A splat in a file of any format."""

from __future__ import annotations

from pathlib import Path

from gsdistill.core.frames import Frame
from gsdistill.core.structs import Gaussians
from gsdistill.export.formats import writer_for
from gsdistill.export.settings import ExportSettings


def written(folder: Path, extension: str, scene: Gaussians, frame: Frame | None = None) -> Path:
    """Write the scene as ``folder/a`` in the format of the extension, and return where."""
    path = folder / f"a{extension}"
    writer_for(path, ExportSettings(frame=frame)).write(scene, path)
    return path
