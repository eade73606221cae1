"""Build the folder of the meshes of everyday objects, which GSDISTILL_OBJECTS names, from what their authors published.

    python tools/objects/build.py SOURCES OUTPUT --fetch
    python tools/objects/build.py SOURCES OUTPUT --fetch --only debian/sweethome3d-furniture
    python tools/objects/build.py SOURCES OUTPUT --compare OTHER

SOURCES has one sub-folder for each repository of sources.json; ``--fetch`` gets what it lacks from GitHub and from
Debian. A model whose files are not there, or are not those of the table, is left out and named. OUTPUT gets
objects.npz and objects.json. ``--compare`` draws each model of both folders and tells how far they differ.
"""

from __future__ import annotations

import argparse
import logging
import struct
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from compare import compare, told
from coplanar import moved_apart
from gather import gather, lacking
from load import read_parts
from numpy.typing import NDArray
from paint import paint
from rich.progress import track
from shape import Mesh, centred, decimated, placed, welded
from table import Source, read_table

from gsdistill.disk.write import atomic_path, write_json

BROKEN = ValueError, KeyError, IndexError, OSError, struct.error, zlib.error  # what readers raise for damaged files


def mesh_of(source: Source, place: Path) -> Mesh:
    """The mesh of a model whose files are in a folder."""
    corners, colors = paint(read_parts(place / source.repository.name / source.path), source)
    vertices, faces, colors = decimated(welded(placed(corners, source.turn, source.roll), colors))
    return centred(welded(moved_apart(vertices[faces], colors), colors))


def record(source: Source, mesh: Mesh) -> dict[str, Any]:
    """What objects.json says of a model."""
    return {
        "id": source.name, "noun": source.noun, "synonyms": source.synonyms, "adjectives": source.adjectives,
        "recolourable": source.recolourable, "uncoloured": source.uncoloured,
        "source": f"{source.repository.title}: {source.path}", "licence": "CC0-1.0", "author": source.author,
        "faces": len(mesh[1]), "vertices": len(mesh[0]),
    }  # fmt: skip


def write(output: Path, records: Sequence[dict[str, Any]], meshes: Sequence[Mesh]) -> None:
    """Write both files of the folder."""

    def joined(which: int, kind: Any) -> NDArray[Any]:
        return np.concatenate([mesh[which] for mesh in meshes]).astype(kind)

    arrays = {
        "vertices": np.round(joined(0, np.float64) * 32767).astype(np.int16),
        "faces": joined(1, np.int32),
        "colors": np.round(joined(2, np.float64) * 255).astype(np.uint8),
        "vertex_start": np.cumsum([0, *(len(mesh[0]) for mesh in meshes)]),
        "face_start": np.cumsum([0, *(len(mesh[1]) for mesh in meshes)]),
    }
    with atomic_path(output / "objects.npz") as path:
        np.savez_compressed(path, **arrays)
    write_json(output / "objects.json", list(records))


def build(sources: Sequence[Source], place: Path, output: Path) -> list[str]:
    """Build what can be built; a line for each model that cannot."""
    records, meshes, left = [], [], []
    for source in track(sources, "building"):
        reason = lacking(source, place)
        try:
            mesh = None if reason else mesh_of(source, place)
        except BROKEN as error:
            mesh, reason = None, f"{type(error).__name__}: {error}"
        if mesh is None:
            left.append(f"{source.name} of {source.repository.name}: {reason}")
        else:
            records.append(record(source, mesh))
            meshes.append(mesh)
    if meshes:
        write(output, records, meshes)
    return left


def main(words: Sequence[str] | None = None) -> None:
    """Fetch, build and compare, as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("sources", type=Path, help="the folder of the authors' files")
    parser.add_argument("output", type=Path, help="the folder to write")
    parser.add_argument("--fetch", action="store_true", help="get the files that are not there yet")
    parser.add_argument("--compare", type=Path, metavar="FOLDER", help="tell how far OUTPUT is from another folder")
    parser.add_argument("--only", nargs="+", metavar="REPOSITORY", default=[], help="none: all of the table")
    options = parser.parse_args(words)
    logging.getLogger("trimesh").setLevel(logging.ERROR)  # it warns of pictures that authors never published
    sources = [one for one in read_table() if not options.only or one.repository.name in options.only]
    if options.fetch:
        gather(sources, options.sources)
    left = build(sources, options.sources, options.output)
    print(f"{len(sources) - len(left)} models built in {options.output}, {len(left)} left out", *left, sep="\n")
    if options.compare:
        print(told(compare(options.output, options.compare)))
    sys.exit(bool(left))


if __name__ == "__main__":
    main()
