"""From a file's name to the writer of its format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gsdistill.export.base import Writer
from gsdistill.export.settings import ExportSettings, RunExport, extension_of, extensions
from gsdistill.settings.registry import load

__all__ = ["run_writers", "writer_for"]


def writer_for(path: Path | str, settings: ExportSettings) -> Writer:
    """The writer of the format that the extension of ``path`` names, after its :meth:`Writer.check`.

    Raises:
        ConfigError: no format has this extension, or it cannot hold what the settings demand.
        NotInstalled: the format's package is missing.
    """
    cls: Any = load("gsdistill.export", extensions()[extension_of(Path(path).name)], kind="format")
    writer = cls(frame=settings.frame, sh_pad=settings.sh_pad)
    writer.check()
    return writer


def run_writers(settings: RunExport) -> dict[str, Writer]:
    """The writers of the final splat of a run, by the names of their files, after their checks.

    Raises:
        ConfigError: a format cannot hold what the settings demand.
        NotInstalled: a format's package is missing.
    """
    wanted = [".ply", *(extension for extension, name in extensions().items() if name in settings.formats)]
    return {f"gaussians{extension}": writer_for(f"gaussians{extension}", settings) for extension in wanted}
