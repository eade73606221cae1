"""Settings of writing splats. Nothing heavy is imported here, because the command line reads this for its help."""

from __future__ import annotations

from dataclasses import dataclass

from gsdistill.core.errors import ConfigError, did_you_mean
from gsdistill.core.frames import Frame
from gsdistill.core.ranges import bounded
from gsdistill.settings.registry import names

__all__ = ["ExportSettings", "RunExport", "extension_of", "extensions"]


@dataclass(frozen=True)
class ExportSettings:
    """Settings that all formats have."""

    # The axes of what is written: rdf, y-up, z-up, unity or world; none: what the format's viewers expect.
    frame: Frame | None = None
    sh_pad: int | None = bounded(None, low=1, high=3)  # Fill up view-dependent colour to this SH degree.


@dataclass(frozen=True)
class RunExport(ExportSettings):
    """What a run writes at its end; gaussians.ply is always written."""

    formats: tuple[str, ...] = ()  # more files of the splat: names of `gsdistill list formats`

    def __post_init__(self) -> None:
        known = names("gsdistill.export")
        for name in self.formats:
            if name not in known:
                raise ConfigError(
                    f"export.formats: unknown format '{name}'.{did_you_mean(name, known)} Available: {', '.join(known)}"
                )


def extensions() -> dict[str, str]:
    """The names of the formats by the extension of their files, as in ``.compressed.ply`` of ``compressed-ply``."""
    return {f".{name.replace('-', '.')}": name for name in names("gsdistill.export")}


def extension_of(file: str) -> str:
    """The longest extension of a format with which the name ``file`` ends; ``file`` may be only an extension.

    Raises:
        ConfigError: ``file`` ends with no format's extension, or with ``.gz``.
    """
    known = extensions()
    fits = [extension for extension in known if file.lower().endswith(extension)]
    if file.lower().endswith(".gz"):
        raise ConfigError(f"'{file}': gzipped files can be read but not written. Allowed: {', '.join(known)}")
    if not fits:
        ending = f".{file.rpartition('.')[2]}" if "." in file else file
        raise ConfigError(f"'{file}' names no format.{did_you_mean(ending, known)} Allowed: {', '.join(known)}")
    return max(fits, key=len)
