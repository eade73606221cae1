"""Reading PLY files: splat scenes in the INRIA layout, and the vertex columns of any point cloud.

A splat has the float properties x y z f_dc_0..2 f_rest_* opacity scale_0..2 rot_0..3, in any order: scales as
logarithm, opacity as logit, rot as w x y z, f_rest channel-major (all coefficients of red first). nerfstudio can write
plain colours red green blue in place of the harmonics. Mip-Splatting adds filter_3D, the deviation by which a Gaussian
is widened; such a splat is drawn antialiased. Text and both binary byte orders are read, with any comments in the
header. The counts of a header are checked against the size of the file before memory is allocated for them.

The header of a file that gsdistill wrote names the splat's axes in a comment "gsdistill frame NAME", and the render
options that are not the usual ones in another. The axes of other files are not known: they are assumed to be those of
our world, unless the caller names others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import BadFile, tell
from gsdistill.core.frames import Frame
from gsdistill.core.structs import SH_C0, Gaussians, RenderOptions
from gsdistill.disk.read import open_unpacked, parse_json
from gsdistill.scene.columns import RGB, Columns, scale_colors, stacked
from gsdistill.scene.content import Content, axes_of, frame_called, options_called
from gsdistill.scene.ply_header import LONGEST, Header, Rewritten, read_header

__all__ = ["FRAME_COMMENT", "OPTIONS_COMMENT", "Vertices", "content_of", "parse_vertices", "read_vertices"]

FRAME_COMMENT, OPTIONS_COMMENT = "gsdistill frame", "gsdistill renderer"
POSITION = ("x", "y", "z")
DC = ("f_dc_0", "f_dc_1", "f_dc_2")
OTHERS = ("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3")
WIDENING = "filter_3D"
SHORTEST_TEXT = 2  # bytes of a number in a text file: one digit and the space or line end after it
TABLES = ("chunk", "sh")  # elements of a compressed PLY besides its vertices


@dataclass(frozen=True)
class Vertices:
    """The vertices of a PLY file, and what its header says about them."""

    path: Path
    columns: Columns  # the properties by name, one array of equal length each, as typed in the file
    frame: Frame | None  # the axes that a comment of the header names
    comments: Sequence[str] = ()  # all comments of the header
    tables: Mapping[str, Columns] = field(default_factory=dict)  # the other elements of a compressed PLY, by name

    @property
    def names_options(self) -> bool:
        """Whether a comment of the header has render options, be they the usual ones."""
        return _commented(self.comments, OPTIONS_COMMENT) is not None

    @property
    def options(self) -> RenderOptions:
        """The render options in a comment of the header, or the usual ones.

        Raises:
            BadFile: the comment cannot be read.
        """
        options = _commented(self.comments, OPTIONS_COMMENT)
        return options_called(parse_json(options, f"{self.path}: {OPTIONS_COMMENT}") if options else {}, self.path)

    def axes(self, frame: Frame | None) -> Frame:
        """The axes of the file: those of the header, or else ``frame``, or else those of our world.

        Raises:
            BadFile: ``frame`` contradicts the header.
        """
        return axes_of(self.path, self.frame, frame, "world")


def content_of(vertices: Vertices) -> Content:
    """Return the splat that the vertices describe, as it stands; a Notice says if its colours are plain ones.

    Raises:
        BadFile: a property is missing, a plain colour is out of range, or as :attr:`Vertices.options`.
    """
    columns, path = vertices.columns, vertices.path
    rest = [name for name in columns if name.startswith("f_rest_")]
    degree = {0: 0, 9: 1, 24: 2, 45: 3}.get(len(rest))
    if degree is None:
        raise BadFile(f"{path}: has {len(rest)} f_rest properties; SH degrees 0 to 3 have 0, 9, 24 or 45")
    plain = not rest and DC[0] not in columns and columns.keys() >= set(RGB)
    names = [*POSITION, *OTHERS, *(() if plain else DC), *(f"f_rest_{place}" for place in range(len(rest)))]
    table = stacked(columns, names, path, finite=False)
    means, opacities, scales, quats, dc, rest_of_sh = table.split([3, 1, 3, 4, 0 if plain else 3, len(rest)], dim=1)
    base = _convert_plain(columns, path) if plain else dc
    higher = rest_of_sh.reshape(len(table), 3, -1).transpose(1, 2)
    sh = torch.cat([base[:, None], higher], dim=1).contiguous()
    options = vertices.options
    if WIDENING in columns:
        options = replace(options, antialiased=True)
        scales, opacities = _widened(scales, opacities, stacked(columns, [WIDENING], path, finite=False))
    parts = (means.contiguous(), quats.contiguous(), scales.contiguous(), opacities[:, 0].contiguous(), sh)
    return Content(path, Gaussians(*parts, options=options), vertices.frame, "world")


def _widened(
    scales: Float[Tensor, "N 3"], opacities: Float[Tensor, "N 1"], by: Float[Tensor, "N 1"]
) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 1"]]:
    """Convolve Gaussians with round ones of the deviations ``by``, and dim them by the volume that they gain.

    s' = sqrt(s^2 + by^2), opacity' = opacity prod(s / s'). Source: Yu et al., Mip-Splatting, the 3D smoothing filter.
    Where ``by`` is 0 nothing changes, not even by rounding or where values are infinite.
    """
    wide = torch.logaddexp(2.0 * scales.double(), 2.0 * by.double().abs().log()) / 2.0
    share = torch.nn.functional.logsigmoid(opacities.double()) + (scales - wide).sum(dim=1, keepdim=True)
    dimmed = torch.minimum(share - (-share.expm1()).log(), opacities.double())  # rounding must not make it brighter
    return torch.where(by == 0, scales, wide.float()), torch.where(by == 0, opacities, dimmed.float())


def _convert_plain(columns: Columns, path: Path) -> Float[Tensor, "N 3"]:
    """Return harmonics of degree 0 that show the plain colours; a Notice tells of them."""
    kind = "whole numbers" if columns[RGB[0]].dtype.kind in "ui" else "fractions"
    tell(f"{path}: its colours are red green blue, {kind}, where a splat has f_dc_0..2; none depends on the view")
    return (scale_colors(columns, RGB, path) - 0.5) / SH_C0


def read_vertices(path: Path | str) -> Vertices:
    """Return the vertices of a PLY file.

    Raises:
        BadFile: the file cannot be opened, is not a sound PLY, has no vertices, a vertex property is a list, or its
            header names unknown axes.
    """
    with open_unpacked(path) as file:
        return parse_vertices(file, Path(path))


def parse_vertices(file: BinaryIO, path: Path) -> Vertices:
    """Return the vertices of an open PLY file, unzipped and at its start; ``path`` is named in errors.

    Raises:
        BadFile: as :func:`read_vertices`.
    """
    from plyfile import PlyData, PlyParseError

    try:
        header = read_header(file.read(LONGEST), path)
        _check_header(header, path, os.fstat(file.fileno()).st_size)
        file.seek(0)
        data = PlyData.read(Rewritten(FileIO(file.fileno(), closefd=False), header.plain, header.size))
        columns = _columns(data["vertex"].data)
        packed = "packed_position" in columns
        tables = {item.name: _columns(item.data) for item in data.elements if packed and item.name in TABLES}
    except OSError as error:
        raise BadFile(f"{path}: cannot be read: {error.strerror or error}") from error
    except BadFile:
        raise
    except (PlyParseError, ValueError, OverflowError, MemoryError) as error:
        raise BadFile(f"{path}: not a sound PLY file: {error}") from error
    name = _commented(header.comments, FRAME_COMMENT)
    frame = None if name is None else frame_called(name, path)
    return Vertices(path, columns, frame, header.comments, tables)


def _columns(rows: np.ndarray) -> Columns:
    return {name: np.array(rows[name]) for name in rows.dtype.names or ()}


def _commented(comments: Sequence[str], word: str) -> str | None:
    """The rest of the first comment that begins with ``word``."""
    return next((line[len(word) :].strip() for line in comments if line.startswith(word)), None)


def _check_header(header: Header, path: Path, size: int) -> None:
    """Refuse a file whose header is wrong, or promises more than the bytes after it can hold.

    The header is parsed by plyfile with all counts set to zero, so that nothing is allocated.
    """
    from plyfile import PlyData, PlyListProperty

    element = re.compile(rb"(?<=\n)(element[ \t]+\S+[ \t]+)(\d{1,40})(?=\n)")
    counts = [int(match[2]) for match in element.finditer(header.plain)]
    empty = PlyData.read(BytesIO(element.sub(rb"\g<1>0", header.plain)))
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
    numbers = {item.name: count for item, count in zip(empty.elements, counts, strict=True)}
    if "vertex" not in numbers:
        raise BadFile(f"{path}: has no vertices, only {', '.join(numbers) or 'a header'}")
    if numbers["vertex"] == 0:
        raise BadFile(f"{path}: holds zero vertices")
    available = size - header.size
    if claimed > available + int(empty.text):  # the last line of a text file may lack its end
        raise BadFile(f"{path}: truncated; its header promises at least {claimed} bytes of data, {available} follow")


def _row_bytes(properties: Sequence[Any]) -> int:
    """Return the least number of bytes of one binary row: each number, and of a list only its length."""
    from plyfile import PlyListProperty

    types = (item.list_dtype()[0] if isinstance(item, PlyListProperty) else item.dtype() for item in properties)
    return sum(np.dtype(kind).itemsize for kind in types)
