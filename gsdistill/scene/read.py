"""Reading a splat of any format: .ply .compressed.ply .spz .sog .splat .glb, each also gzipped (.ply.gz).

A file is told by its first bytes, so a wrong name does no harm; .splat alone has none of its own and is told by its
name. A folder is that of a run, whose gaussians.ply is read. Where such a file does not say how it is drawn, which
those of gsdistill 0.1 never did, the run's config.yaml does.

A file's axes are those that it names (gsdistill writes the name where a format has room for one), or else as the reader
is told, or else as is usual with its format: right, down, front (rdf) for all but .glb, which is y-up, and .ply, which
is taken to be in our own axes.
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
from gsdistill.scene.ply import Vertices, vertices_in
from gsdistill.scene.ply import content_of as content_of_plain
from gsdistill.scene.ply_header import begins
from gsdistill.settings.yaml import load_yaml

__all__ = ["EXTENSIONS", "content_of", "is_ply", "may_be_splat", "open_splat", "read_splat", "splat_file"]

EXTENSIONS = (".compressed.ply", ".glb", ".ply", ".sog", ".splat", ".spz")
OF_A_RUN, CONFIG = "gaussians.ply", "config.yaml"
READERS = {".spz": spz.read, ".sog": sog.read, ".glb": glb.read, ".splat": splat.read}
MAGICS = {spz.MAGIC: ".spz", sog.MAGIC: ".sog", glb.MAGIC: ".glb"}
DESCRIBED = {".sog": sog.describes_splat, ".glb": glb.describes_splat}  # files that may be of quite other things
FIRST = 8  # bytes that tell the formats apart


def read_splat(path: Path | str, frame: Frame | None = None, clean: bool = False) -> Gaussians:
    """Read a splat of any format, turned from its axes into our world's.

    ``frame`` names the axes of a file that does not. With ``clean`` Gaussians that are NaN, infinite or without a
    rotation are left out or mended, and a Notice counts them.

    Raises:
        BadFile: it cannot be read, is broken, of no format that is read, or holds no Gaussian; or some are not sound,
            and ``clean`` is not set.
    """
    return open_splat(path).in_world(frame, clean)


def open_splat(path: Path | str) -> Content:
    """Return what a file holds, or the gaussians.ply of a run's folder, as it stands there.

    Raises:
        BadFile: as :func:`read_splat`.
    """
    path = splat_file(path)
    with open_unpacked(path) as file:
        start = file.read(FIRST)
        file.seek(0)
        kind = _kind(start, path)
        if kind == ".ply":
            vertices = vertices_in(file, path)
            return content_of(vertices) if vertices.tells_options else _as_its_run(content_of(vertices))
        if kind is None:
            raise BadFile(
                f"{path}: not a splat that is read: it begins as no .ply, .spz, .sog or .glb does, and its name does "
                f"not end in .splat. Read are {', '.join(EXTENSIONS)}, each also gzipped"
            )
        return READERS[kind](file.read(), path)


def _as_its_run(content: Content) -> Content:
    """A splat that does not say how it is drawn, with the options of the run whose it is; any other as it is.

    The files of gsdistill 0.1 did not say.
    """
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
    """Return the splat that the vertices of a PLY are, plain or compressed.

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
    """Whether a file is called like a splat, or begins like one, so that whoever reads it must say what is wrong.

    A .glb, or a ZIP file of another name than .sog, is one only if it describes a splat.

    Raises:
        BadFile: it cannot be read.
    """
    kind, name = _kind(first_bytes(path, FIRST), path), _plain(path)
    if kind not in DESCRIBED or name.endswith(".sog"):
        return kind is not None or name.endswith(EXTENSIONS)
    with open_unpacked(path) as file:
        return DESCRIBED[kind](file)


def _kind(start: bytes, path: Path) -> str | None:
    """The extension of the format that a file of these first bytes has; None where it is none that is read."""
    if begins(start):
        return ".ply"
    kind = next((kind for magic, kind in MAGICS.items() if start.startswith(magic)), None)
    return ".splat" if kind is None and _plain(path).endswith(".splat") else kind


def splat_file(path: Path | str) -> Path:
    """The file of a splat that may be the folder of a run.

    Raises:
        BadFile: it is a folder, and not that of a run.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    if not (path / OF_A_RUN).exists():
        if (path / CONFIG).is_file():
            raise BadFile(f"the run in {path} has no {OF_A_RUN} yet; what snapshots/ holds there are splats too")
        raise BadFile(f"{path} is a folder without {OF_A_RUN}, so it is not that of a run")
    return path / OF_A_RUN


def _plain(path: Path) -> str:
    """The name of a file, lower case, without that it is gzipped."""
    return path.name.lower().removesuffix(".gz")
