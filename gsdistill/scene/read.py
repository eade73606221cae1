"""Reading a splat of any format: .ply .compressed.ply .spz .sog .splat .glb, each also gzipped (.ply.gz).

The first bytes of a file show its format, so a wrong name does no harm; only .splat has no such bytes and is recognised
by its name. A folder must be that of a run; its gaussians.ply is read. If that file has no render options, as those of
gsdistill 0.1 have none, they are taken from the run's config.yaml.

A file's axes are those that it names (gsdistill writes the name where a format has room for it), or else those that the
caller names, or else the usual ones of its format: right, down, front (rdf) for all but .glb, which is y-up, and .ply,
which is assumed to be in our own axes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gsdistill.core.errors import BadFile, tell
from gsdistill.core.frames import Frame
from gsdistill.core.structs import Gaussians, RenderOptions
from gsdistill.disk.read import first_bytes, open_unpacked
from gsdistill.scene.content import Content, options_called
from gsdistill.scene.formats import compressed_ply, glb, sog, splat, spz
from gsdistill.scene.ply import Vertices, parse_vertices
from gsdistill.scene.ply import content_of as content_of_plain
from gsdistill.scene.ply_header import begins
from gsdistill.settings.yaml import load_yaml

__all__ = ["EXTENSIONS", "content_of", "is_ply", "may_be_splat", "open_splat", "read_splat", "splat_file"]

EXTENSIONS = (".compressed.ply", ".glb", ".ply", ".sog", ".splat", ".spz")
OF_A_RUN, CONFIG = "gaussians.ply", "config.yaml"
READERS = {".spz": spz.read, ".sog": sog.read, ".glb": glb.read, ".splat": splat.read}
MAGICS = {spz.MAGIC: ".spz", sog.MAGIC: ".sog", glb.MAGIC: ".glb"}
DESCRIBED = {".sog": sog.describes_splat, ".glb": glb.describes_splat}  # formats whose files need not hold a splat
FIRST = 8  # bytes that show the format


def read_splat(path: Path | str, frame: Frame | None = None, clean: bool = False) -> Gaussians:
    """Read a splat of any format, turned from its axes into our world's.

    ``frame`` names the axes of a file that does not. With ``clean`` Gaussians that are NaN, infinite or without a
    rotation are left out or mended, and a Notice counts them.

    Raises:
        BadFile: the file cannot be read, is broken, is of an unknown format or holds no Gaussian; or some Gaussians are
            not sound, and ``clean`` is not set.
    """
    return open_splat(path).in_world(frame, clean)


def open_splat(path: Path | str) -> Content:
    """Return what a file, or the gaussians.ply in a run's folder, holds as it stands.

    Raises:
        BadFile: as :func:`read_splat`.
    """
    path = splat_file(path)
    with open_unpacked(path) as file:
        start = file.read(FIRST)
        file.seek(0)
        kind = _kind(start, path)
        if kind == ".ply":
            vertices = parse_vertices(file, path)
            return content_of(vertices) if vertices.names_options else _as_its_run(content_of(vertices))
        if kind is None:
            raise BadFile(
                f"{path}: not a splat that is read: it does not begin like a .ply, .spz, .sog or .glb, and its name "
                f"does not end in .splat. Known formats: {', '.join(EXTENSIONS)}, each also gzipped"
            )
        return READERS[kind](file.read(), path)


def _as_its_run(content: Content) -> Content:
    """A splat without render options, with those of the run whose gaussians.ply it is; any other as it is."""
    config = content.path.with_name(CONFIG)
    if content.path.name != OF_A_RUN or not config.is_file():
        return content
    try:
        options = options_called(load_yaml(config).get("renderer") or {}, config)
    except BadFile as error:
        tell(f"{content.path} is drawn with {RenderOptions()}: {error}")
        return content
    return replace(content, gaussians=replace(content.gaussians, options=options))


def content_of(vertices: Vertices) -> Content:
    """Return the splat that the vertices of a PLY describe, plain or compressed.

    Raises:
        BadFile: as :func:`read_splat`.
    """
    return compressed_ply.read(vertices) if compressed_ply.is_packed(vertices) else content_of_plain(vertices)


def is_ply(path: Path | str) -> bool:
    """Whether a file is a PLY, gzipped or not.

    Raises:
        BadFile: it cannot be read.
    """
    if Path(path).is_dir():
        return False
    with open_unpacked(path) as file:
        return begins(file.read(FIRST))


def may_be_splat(path: Path) -> bool:
    """Whether a file has the name or the first bytes of a splat, so that errors in it are worth reporting.

    A .glb, or a ZIP file not named .sog, counts only if it describes a splat.

    Raises:
        BadFile: it cannot be read.
    """
    kind, name = _kind(first_bytes(path, FIRST), path), _plain(path)
    if kind not in DESCRIBED or name.endswith(".sog"):
        return kind is not None or name.endswith(EXTENSIONS)
    with open_unpacked(path) as file:
        return DESCRIBED[kind](file)


def _kind(start: bytes, path: Path) -> str | None:
    """The extension of the format that a file's first bytes show, or its name; None for an unknown format."""
    if begins(start):
        return ".ply"
    kind = next((kind for magic, kind in MAGICS.items() if start.startswith(magic)), None)
    return ".splat" if kind is None and _plain(path).endswith(".splat") else kind


def splat_file(path: Path | str) -> Path:
    """Return the gaussians.ply of a run's folder, and any other path as it is.

    Raises:
        BadFile: it is a folder without that file.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    if not (path / OF_A_RUN).exists():
        if (path / CONFIG).is_file():
            raise BadFile(f"the run in {path} has no {OF_A_RUN} yet; the files in its snapshots/ are splats too")
        raise BadFile(f"{path} is a folder without {OF_A_RUN}, so it is not the folder of a run")
    return path / OF_A_RUN


def _plain(path: Path) -> str:
    """The name of a file in lower case, without .gz."""
    return path.name.lower().removesuffix(".gz")
