"""Reading PLY files: splat scenes in the INRIA layout, and the vertex columns of any point cloud.

A splat has the float properties x y z f_dc_0..2 f_rest_* opacity scale_0..2 rot_0..3, in any order: scales as
logarithm, opacity as logit, rot as w x y z, f_rest channel-major (all coefficients of red first). Text and both binary
byte orders are read, under a header with any remarks. Nothing is repaired: a file that is not wholly sound is refused,
and what its header claims is held against its size before memory is taken for it.

A splat's axes are those that the comment "gsdistill frame NAME" of its header names, which gsdistill writes. Of other
files nothing is known: they are taken to be in our world's axes, if the reader is not told otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO, FileIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.errors import BadFile, did_you_mean
from gsdistill.frames import FRAMES, Frame
from gsdistill.reading import open_file
from gsdistill.scene.ply_header import LONGEST, Header, Rewritten, read_header
from gsdistill.scene.turn import from_frame
from gsdistill.structs import Gaussians

__all__ = ["FRAME_COMMENT", "Columns", "Vertices", "gaussians_from", "read_ply", "read_vertices", "stacked"]

Columns: TypeAlias = Mapping[str, np.ndarray]

FRAME_COMMENT = "gsdistill frame"
POSITION = ("x", "y", "z")
REQUIRED = (*POSITION, "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2")
ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")
SHORTEST_TEXT = 2  # bytes of a number in a text file: one digit and the space or line end after it


@dataclass(frozen=True)
class Vertices:
    """What a PLY file says of its vertices."""

    path: Path
    columns: Columns  # the properties by name, one array of equal length each, as typed in the file
    frame: Frame | None  # the axes that a comment of the header names

    def axes(self, told: Frame | None) -> Frame:
        """The axes of the file: of the header, or else as ``told``, or else those of our world.

        Raises:
            BadFile: what is told contradicts the header.
        """
        if told and self.frame and told != self.frame:
            raise BadFile(f"{self.path}: its header names the frame '{self.frame}', not '{told}'")
        return self.frame or told or "world"


def read_ply(path: Path | str, frame: Frame | None = None) -> Gaussians:
    """Read a splat in the INRIA layout, turned from its axes into our world's.

    ``frame`` names the axes of a file whose header does not. What is in our axes comes back bit for bit.

    Raises:
        BadFile: not a PLY, truncated, a property is missing or not finite, a rotation is zero, or there is no Gaussian.
    """
    return gaussians_from(read_vertices(path), frame)


def gaussians_from(vertices: Vertices, frame: Frame | None = None) -> Gaussians:
    """Return the Gaussians that the vertices are, in our world's axes.

    Raises:
        BadFile: as :func:`read_ply`.
    """
    columns, path = vertices.columns, vertices.path
    rest = [name for name in columns if name.startswith("f_rest_")]
    degree = {0: 0, 9: 1, 24: 2, 45: 3}.get(len(rest))
    if degree is None:
        raise BadFile(f"{path}: has {len(rest)} f_rest properties; SH degrees 0 to 3 have 0, 9, 24 or 45")
    names = [*REQUIRED, *ROTATION, *(f"f_rest_{i}" for i in range(len(rest)))]
    table = stacked(columns, names, path)
    means, dc, opacities, scales, quats, rest_of_sh = table.split([3, 3, 1, 3, 4, len(rest)], dim=1)
    zero = int((quats.double().norm(dim=-1) < 1e-12).sum())
    if zero:
        raise BadFile(f"{path}: rot_0..3 is zero, which is no rotation, for {zero} of {len(quats)} Gaussians")
    higher = rest_of_sh.reshape(len(table), 3, -1).transpose(1, 2)
    sh = torch.cat([dc[:, None], higher], dim=1).contiguous()
    found = Gaussians(means.contiguous(), quats.contiguous(), scales.contiguous(), opacities[:, 0].contiguous(), sh)
    return from_frame(found, vertices.axes(frame))


def stacked(columns: Columns, names: Sequence[str], path: Path | str) -> Float[Tensor, "N P"]:
    """Return the named columns side by side in float32.

    Raises:
        BadFile: one is missing, or holds NaN or infinity.
    """
    missing = [name for name in names if name not in columns]
    if "packed_position" in columns:
        raise BadFile(f"{path}: is a compressed PLY, which is not read; only the INRIA layout is")
    if missing:
        plain = "f_dc_0" in missing and {"red", "green", "blue"} <= columns.keys()
        hint = "; its red green blue are not read in their place: export it with spherical harmonics" if plain else ""
        raise BadFile(f"{path}: lacks the vertex properties {', '.join(missing)}{hint}")
    with np.errstate(over="ignore"):
        table = np.stack([columns[name].astype(np.float32) for name in names], axis=1)
    wrong = {name: int(bad) for name, bad in zip(names, (~np.isfinite(table)).sum(axis=0), strict=True) if bad}
    if wrong:
        found = ", ".join(f"{name} ({bad})" for name, bad in wrong.items())
        raise BadFile(f"{path}: values that are NaN or infinite among its {len(table)} vertices: {found}")
    return torch.from_numpy(table)


def read_vertices(path: Path | str) -> Vertices:
    """Return the vertices of a PLY file.

    Raises:
        BadFile: the file cannot be opened, is not a sound PLY, has no vertices, a vertex property is a list, or its
            header names axes that there are none of.
    """
    from plyfile import PlyData, PlyParseError

    try:
        with open_file(path) as file:
            header = read_header(file.read(LONGEST), path)
            _check_header(header, Path(path))
            file.seek(0)
            data = PlyData.read(Rewritten(FileIO(file.fileno(), closefd=False), header.plain, header.size))
            vertices = data["vertex"].data
    except OSError as error:
        raise BadFile(f"{path}: cannot be read: {error.strerror or error}") from error
    except BadFile:
        raise
    except (PlyParseError, ValueError, OverflowError, MemoryError) as error:
        raise BadFile(f"{path}: not a sound PLY file: {error}") from error
    columns = {name: np.array(vertices[name]) for name in vertices.dtype.names}
    return Vertices(Path(path), columns, _frame(header.comments, path))


def _frame(comments: Sequence[str], path: Path | str) -> Frame | None:
    """The axes that the comments of a header name."""
    given = [line[len(FRAME_COMMENT) :].strip() for line in comments if line.startswith(FRAME_COMMENT)]
    if not given:
        return None
    for frame in FRAMES:
        if frame == given[0]:
            return frame
    hint = did_you_mean(given[0], FRAMES)
    raise BadFile(f"{path}: its header names the frame '{given[0]}'.{hint} Allowed: {', '.join(FRAMES)}")


def _check_header(given: Header, path: Path) -> None:
    """Refuse a file whose header is wrong, or promises more than the bytes after it can hold.

    The header is parsed by plyfile with all counts set to zero, so that nothing is allocated.
    """
    from plyfile import PlyData, PlyListProperty

    element = re.compile(rb"(?<=\n)(element[ \t]+\S+[ \t]+)(\d{1,40})(?=\n)")
    counts = [int(match[2]) for match in element.finditer(given.plain)]
    empty = PlyData.read(BytesIO(element.sub(rb"\g<1>0", given.plain)))
    if len(counts) != len(empty.elements):
        raise BadFile(f"{path}: not a sound PLY file; the number of an element is not a whole number")
    claimed = 0
    for item, count in zip(empty.elements, counts, strict=True):
        if not item.properties:
            raise BadFile(f"{path}: not a sound PLY file; its element '{item.name}' has no properties")
        lists = [prop.name for prop in item.properties if isinstance(prop, PlyListProperty)]
        if item.name == "vertex" and lists:
            raise BadFile(f"{path}: its vertex property {lists[0]} is a list, where a single number belongs")
        claimed += count * (_row_bytes(item.properties) if not empty.text else SHORTEST_TEXT * len(item.properties))
    _check_vertices(path, dict(zip([item.name for item in empty.elements], counts, strict=True)))
    held = path.stat().st_size - given.size
    if claimed > held + int(empty.text):  # the last line of a text file may lack its end
        raise BadFile(f"{path}: truncated; its header promises at least {claimed} bytes of data, {held} follow")


def _check_vertices(path: Path, counts: Mapping[str, int]) -> None:
    if "vertex" not in counts:
        raise BadFile(f"{path}: has no vertices, only {', '.join(counts) or 'a header'}")
    if counts["vertex"] == 0:
        raise BadFile(f"{path}: holds zero vertices")


def _row_bytes(properties: Sequence[object]) -> int:
    """Return the least number of bytes of one binary row: each number, and of a list only its length."""
    from plyfile import PlyListProperty, PlyProperty

    total = 0
    for item in properties:
        if isinstance(item, PlyListProperty):
            total += np.dtype(item.list_dtype()[0]).itemsize
        elif isinstance(item, PlyProperty):
            total += np.dtype(item.dtype()).itemsize
    return total
