"""Reading SPZ of versions 2 to 4: columns of bytes, gzipped as a whole or, in version 4, packed one by one.

header       of 16 bytes: NGSP, version, count, degree of the harmonics, bits of a position behind the point, flags, and
             the number of streams; in version 4 of 32, the place of its table among them
table        of version 4: how many bytes each column has, packed with Zstandard and unpacked; then come the columns
positions    3 times 24 bits with a sign, in steps of 2^-bits
opacities    bytes of 0..1
colours      of degree 0, bytes: 0.5 + 0.15 times the coefficient is their share of 255
scales       logarithms from -10 on, bytes in steps of a sixteenth
rotations    version 2: x y z as bytes over -1..1; later ones: 2 bits for the place of the largest among x y z w, and
             10 for each other, a sign and 9 bits over sqrt(1/2)
harmonics    above degree 0, bytes: 128 is 0 and 128 more would be 1; red green blue of each coefficient
records      if a flag says so, behind the columns, in version 4 before the table: kind, length, content

Its axes are right, up, back, where those of a PLY of the same scene are right, down, front; a record may name others.
Opacities of 0 and 255 are logits of -20 and 20. gsply's reader is not used because it unpacks everything before it
checks the header, however much that is.
Source: Niantic Spatial, github.com/nianticlabs/spz.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from gsdistill.core.errors import BadFile
from gsdistill.core.extras import require
from gsdistill.core.frames import Frame
from gsdistill.core.structs import Gaussians, RenderOptions
from gsdistill.disk.read import most_unpacked
from gsdistill.scene.content import Content, completed, from_arrays
from gsdistill.scene.turn import turned

__all__ = ["ANTIALIASED", "COLOUR", "DOWN_FRONT_TO_UP_BACK", "FIRST_SCALE", "MAGIC", "SCALE_STEPS", "decode", "read"]

MAGIC = b"NGSP"
HEADER = struct.Struct("<4sIIBBBB")
LONGER = struct.Struct("<I12x")  # what version 4 adds to it
ENTRY, RECORD = struct.Struct("<QQ"), struct.Struct("<II")
VERSIONS = (2, 3, 4)
MOST_BITS = 24  # of a position
ANTIALIASED, HAS_RECORDS = 1, 2  # flags
AXES = 0xADBE0003  # the kind of a record
UP_BACK = 4  # right, up, back among the axes of such a record
NAMED: dict[int, Frame] = {6: "rdf", 7: "y-up", 8: "unity", 15: "z-up"}  # the other numbers that are read
WINDOW = 1 << 27  # most bytes that a packed stream may look back, as in other programs
COLOUR = 0.15  # change of a colour in 0..1 by a coefficient of 1 of degree 0
FIRST_SCALE, SCALE_STEPS = -10.0, 16.0
DOWN_FRONT_TO_UP_BACK = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0))


def read(data: bytes, path: Path) -> Content:
    """Return the splat of an unzipped file, in the axes that it names, or else in those that a PLY has.

    Raises:
        BadFile: as :func:`decode`, or it names axes that are not read.
        NotInstalled: as :func:`decode`.
    """
    axes = _Header.of(data, path).axes(data, path)
    content = decode(data, path, most_unpacked(len(data)))
    if axes in NAMED:
        return Content(path, content, NAMED[axes], "rdf")
    if axes not in (None, UP_BACK):
        numbers = ", ".join(map(str, sorted([UP_BACK, *NAMED])))
        raise BadFile(f"{path}: its axes are number {axes} of SPZ's; only numbers {numbers} are read")
    named = None if axes is None else "rdf"
    return Content(path, turned(content, torch.tensor(DOWN_FRONT_TO_UP_BACK)), named, "rdf")


def decode(data: bytes, path: Path, most: int) -> Gaussians:
    """Return the Gaussians of an unzipped file in its own axes; ``path`` is named in errors.

    Raises:
        BadFile: the version is another one, it holds no Gaussian or less than its header promises, or columns of
            version 4 are broken or unpack to more than ``most`` bytes.
        NotInstalled: it is of version 4, and zstandard is missing.
    """
    header = _Header.of(data, path)
    columns = _streams(data, header, path, most) if header.version >= 4 else _columns(data, header, path)
    places, alphas, colours, scales, rotations, harmonics = columns
    higher = header.widths[-1] // 3
    sh = np.empty((header.count, 1 + higher, 3))
    sh[:, 0] = (colours / 255.0 - 0.5) / COLOUR
    sh[:, 1:] = (harmonics.reshape(header.count, higher, 3) - 128.0) / 128.0
    splat = from_arrays(
        _signed(places) / 2.0**header.bits,
        np.roll(_first_three(rotations) if header.version == 2 else _smallest_three(rotations), 1, axis=1),
        scales / SCALE_STEPS + FIRST_SCALE,
        alphas[:, 0] / 255.0,
        sh,
    )
    return replace(splat, options=RenderOptions(antialiased=bool(header.flags & ANTIALIASED)))


@dataclass(frozen=True)
class _Header:
    """The header of a file."""

    version: int
    count: int
    degree: int
    bits: int  # of a position behind the point
    flags: int
    streams: int
    table: int  # where the table of version 4 begins

    @staticmethod
    def of(data: bytes, path: Path) -> _Header:
        """Read the header of a file. Raises BadFile if it is cut off or not of a known kind."""
        if len(data) < HEADER.size:
            raise BadFile(f"{path}: not a sound .spz file; its header is cut off")
        magic, *fields = HEADER.unpack_from(data)
        if magic != MAGIC:
            raise BadFile(f"{path}: not a sound .spz file; its unpacked content does not begin with NGSP")
        version, count, degree, bits = fields[:4]
        if version not in VERSIONS:
            raise BadFile(f"{path}: is of SPZ version {version}; only versions 2 to 4 are read; write it as version 3")
        if degree > 3:
            raise BadFile(f"{path}: has harmonics of degree {degree}; only degrees 0 to 3 are read")
        if not count or bits > MOST_BITS:
            promised = f"{count:,} Gaussians and {bits} bits behind the point"
            raise BadFile(f"{path}: not a sound .spz file; its header promises {promised}")
        if version >= 4 and len(data) < HEADER.size + LONGER.size:
            raise BadFile(f"{path}: not a sound .spz file; its header is cut off")
        return _Header(*fields, *(LONGER.unpack_from(data, HEADER.size) if version >= 4 else (0,)))

    @property
    def widths(self) -> tuple[int, ...]:
        """Bytes of one Gaussian in each column."""
        return 9, 1, 3, 3, 3 if self.version == 2 else 4, 3 * ((self.degree + 1) ** 2 - 1)

    def axes(self, data: bytes, path: Path) -> int | None:
        """The number of the axes that a record names; None if none does."""
        if not self.flags & HAS_RECORDS:
            return None
        behind = HEADER.size + self.count * sum(self.widths)
        at, end = (behind, len(data)) if self.version < 4 else (HEADER.size + LONGER.size, min(self.table, len(data)))
        while at + RECORD.size <= end:
            kind, length = RECORD.unpack_from(data, at)
            at += RECORD.size
            if kind == AXES and length == 4 and at + 4 <= end:
                return int.from_bytes(data[at : at + 4], "little")
            at += length
        return None


def _columns(data: bytes, header: _Header, path: Path) -> list[UInt8[np.ndarray, "N _"]]:
    """The columns of versions 2 and 3, each [count, width]."""
    available, promised = len(data) - HEADER.size, header.count * sum(header.widths)
    if available < promised:
        raise BadFile(f"{path}: truncated; its header promises {promised:,} bytes of data, {available:,} follow")
    numbers = np.frombuffer(data, np.uint8, promised, HEADER.size)
    columns = np.split(numbers, header.count * np.cumsum(header.widths)[:-1])
    return [column.reshape(header.count, -1) for column in columns]


def _streams(data: bytes, header: _Header, path: Path, most: int) -> list[UInt8[np.ndarray, "N _"]]:
    """The columns of version 4, each [count, width]; an empty one has no stream."""
    count, widths = header.count, [width for width in header.widths if width]
    if count * sum(widths) > most:
        raise BadFile(f"{path}: not a sound .spz file; its {count:,} Gaussians unpack to far more than it holds")
    if header.streams != len(widths) or header.table < HEADER.size + LONGER.size:
        raise BadFile(
            f"{path}: not a sound .spz file; its header promises {header.streams} streams from byte {header.table} on, "
            f"and harmonics of degree {header.degree} need {len(widths)}"
        )
    require("formats", f"{path}: reading SPZ of version 4", "zstandard")
    at = header.table + ENTRY.size * len(widths)
    columns = []
    for place, width in enumerate(widths):
        if at > len(data):
            raise BadFile(f"{path}: truncated; its table is not whole")
        packed, size = ENTRY.unpack_from(data, header.table + ENTRY.size * place)
        if size != count * width:
            raise BadFile(f"{path}: not a sound .spz file; a stream of {size:,} bytes must hold {count * width:,}")
        if packed > len(data) - at:
            raise BadFile(f"{path}: truncated; a stream of {packed:,} bytes is promised, {len(data) - at:,} follow")
        columns.append(_unpack(data[at : at + packed], size, path).reshape(count, width))
        at += packed
    return columns if len(columns) == len(header.widths) else [*columns, np.empty((count, 0), np.uint8)]


def _unpack(packed: bytes, size: int, path: Path) -> UInt8[np.ndarray, "_"]:
    """Unpack a stream, which must hold ``size`` bytes; no more memory is taken, whatever its own header claims."""
    import zstandard

    unpacker = zstandard.ZstdDecompressor(max_window_size=WINDOW)
    try:
        with unpacker.stream_reader(packed, read_across_frames=True) as stream:
            unpacked = stream.read(size + 1)
    except zstandard.ZstdError as error:
        raise BadFile(f"{path}: not a sound .spz file; a stream cannot be unpacked: {error}") from error
    if len(unpacked) != size:
        less = "less" if len(unpacked) < size else "more"
        raise BadFile(f"{path}: not a sound .spz file; a stream holds {less} than the {size:,} bytes promised")
    return np.frombuffer(unpacked, np.uint8)


def _signed(places: UInt8[np.ndarray, "N 9"]) -> Float[np.ndarray, "N 3"]:
    """Signed integers of three bytes, the lowest byte first."""
    padded = np.zeros((len(places), 3, 4), np.uint8)
    padded[..., 1:] = places.reshape(-1, 3, 3)
    return (padded.view("<i4")[..., 0] >> 8).astype(np.float64)


def _first_three(rotations: UInt8[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 4"]:
    """Quaternions x y z w of version 2, w positive."""
    return completed(rotations / 127.5 - 1.0, np.full(len(rotations), 3))


def _smallest_three(rotations: UInt8[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
    """Quaternions x y z w of versions 3 and 4."""
    words = np.ascontiguousarray(rotations).view("<u4")
    fields = words >> np.array([20, 10, 0], np.uint32)
    sizes = (fields & 511) / (511.0 * np.sqrt(2.0))
    return completed(np.where(fields & 512, -sizes, sizes), (words[:, 0] >> 30).astype(np.int64))
