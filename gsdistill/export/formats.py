"""From a file's name to the writer of its format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gsdistill.export.base import Writer
from gsdistill.export.settings import ExportSettings, RunExport, extension_of, extensions
from gsdistill.settings.registry import load

__all__ = ["run_writers", "writer_for"]


def writer_for(path: Path | str, settings: ExportSettings) -> Writer:
    """Return the writer that the extension of ``path`` names, its package checked.

    Raises:
        ConfigError: no format has this extension.
        NotInstalled: the format's package is missing.
    """
    cls: Any = load("gsdistill.export", extensions()[extension_of(Path(path).name)], kind="format")
    writer = cls(frame=settings.frame, sh_pad=settings.sh_pad)
    writer.check()
    return writer


def run_writers(settings: RunExport) -> dict[str, Writer]:
    """Return the writers of a run's splat by the names of their files, their packages checked.

    Raises:
        NotInstalled: a format's package is missing. ConfigError: it cannot hold what is asked for.
    """
    wanted = [".ply", *(extension for extension, name in extensions().items() if name in settings.formats)]
    return {f"gaussians{extension}": writer_for(f"gaussians{extension}", settings) for extension in wanted}
