"""The table of what the meshes of everyday objects are built from: sources.json beside this file.

``repositories`` has each repository's commit and licence, the checksums of the files that its models need, and what is
done to its colours; one that has a ``package`` is a file of a Debian package. ``models`` has each model's source
('repository: path'), its checksum, its words, how it is turned, and what else is done to its colours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["TABLE", "Repository", "Source", "read_table"]

TABLE = Path(__file__).with_name("sources.json")


@dataclass(frozen=True)
class Repository:
    """A public collection of models: of GitHub, or a zip file in a Debian package."""

    name: str  # owner/name; debian/package
    licence: str  # and where it is told
    files: Mapping[str, str]  # SHA-256 of what its models need beside their own files, by path
    commit: str = ""
    package: str = ""
    version: str = ""  # of the package that the checksums are of
    archive: str = ""  # the zip file in the package
    colors: Mapping[str, float] = field(default_factory=dict)  # what its models have for ``gain`` and ``raw``

    @property
    def title(self) -> str:
        """What records call it."""
        return f"Debian {self.package} {self.version} ({Path(self.archive).name})" if self.package else self.name


@dataclass(frozen=True)
class Source:
    """One model as its author made it, and what becomes of it."""

    name: str
    repository: Repository
    path: str
    sha256: str
    noun: str
    author: str
    synonyms: tuple[str, ...] = ()
    adjectives: tuple[str, ...] = ()  # words of its colours first, then others
    recolourable: bool = False  # it stays what it is in any colour
    uncoloured: bool = False  # the source has no colours
    turn: float = 0.0  # degrees about z, after the front of the file is the front
    roll: float = 0.0  # degrees about y, before that
    gain: float = 1.0  # what linear colours are multiplied with
    raw: float = 0.0  # share of the file's own numbers, taken as sRGB, in a colour
    lift: bool = False  # whether it is made brighter where nothing of it is bright
    liquid: str = ""  # the colour '#rrggbb' that its glass shows
    materials: Mapping[str, str] = field(default_factory=dict)  # colours '#rrggbb' of materials that have none


def read_table(path: Path = TABLE) -> list[Source]:
    """All models, in the order of objects.json."""
    table = json.loads(path.read_text(encoding="utf-8"))
    repositories = {name: Repository(name, **row) for name, row in table["repositories"].items()}
    models = []
    for name, row in table["models"].items():
        owner, _, file = row.pop("source").partition(": ")
        words = {kind: tuple(row.pop(kind, ())) for kind in ("synonyms", "adjectives")}
        models.append(Source(name, repositories[owner], file, **words, **{**repositories[owner].colors, **row}))
    return models
