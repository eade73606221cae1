"""Reading SPZ of versions 2 and 3: gzipped columns of bytes under a header of 16.

header       NGSP, version, count, degree of the harmonics, bits of a position behind the point, flags, reserved
positions    3 times 24 bits with a sign, in steps of 2^-bits
opacities    bytes of 0..1
colours      of degree 0, bytes: 0.5 + 0.15 times the coefficient is their share of 255
scales       logarithms from -10 on, bytes in steps of a sixteenth
rotations    version 2: x y z as bytes over -1..1; version 3: 2 bits for the place of the largest among x y z w, and
             10 for each other, a sign and 9 bits over sqrt(1/2)
harmonics    above degree 0, bytes: 128 is 0 and 128 more would be 1; red green blue of each coefficient

Its axes are right, up, back, where those of a PLY of the same scene are right, down, front. Opacities of 0 and 255 are
logits of -20 and 20. Read here, for gsply unpacks a whole file before it looks at the header, however much it is.
Source: Niantic Spatial, github.com/nianticlabs/spz.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from gsdistill.errors import BadFile
from gsdistill.scene.content import Content, completed, from_arrays
from gsdistill.scene.turn import turned
from gsdistill.structs import Gaussians

__all__ = ["COLOUR", "DOWN_FRONT_TO_UP_BACK", "FIRST_SCALE", "MAGIC", "SCALE_STEPS", "decode", "read"]

MAGIC = b"NGSP"
HEADER = struct.Struct("<4sIIBBBB")
VERSIONS = (2, 3)
MOST_BITS = 24  # of a position
COLOUR = 0.15  # of a byte's whole range for a coefficient of degree 0
FIRST_SCALE, SCALE_STEPS = -10.0, 16.0
DOWN_FRONT_TO_UP_BACK = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0))


def read(data: bytes, path: Path) -> Content:
    """Return what an unpacked file holds, in the axes that a PLY has.

    Raises:
        BadFile: as :func:`decode`.
    """
    return Content(path, turned(decode(data, path), torch.tensor(DOWN_FRONT_TO_UP_BACK)), None, "rdf")


def decode(data: bytes, path: Path) -> Gaussians:
    """Return the Gaussians as their numbers stand, in whatever axes; ``path`` is named in errors.

    Raises:
        BadFile: another version, more or less than its header promises, or no Gaussian.
    """
    if len(data) < HEADER.size:
        raise BadFile(f"{path}: not a sound .spz file; its header is cut off")
    magic, version, count, degree, bits, _, _ = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise BadFile(f"{path}: not a sound .spz file; what is packed in it does not begin with NGSP")
    if version not in VERSIONS:
        raise BadFile(f"{path}: is of SPZ version {version}; only versions 2 and 3 are read: have it written as 3")
    if not count or degree > 3 or bits > MOST_BITS:
        raise BadFile(
            f"{path}: not a sound .spz file; its header promises {count:,} Gaussians, harmonics of degree {degree} and "
            f"{bits} bits behind the point"
        )
    higher = (degree + 1) ** 2 - 1
    widths = (9, 1, 3, 3, 3 if version == 2 else 4, 3 * higher)
    if len(data) - HEADER.size < count * sum(widths):
        held = len(data) - HEADER.size
        raise BadFile(f"{path}: truncated; its header promises {count * sum(widths):,} bytes of data, {held:,} follow")
    places, alphas, colours, scales, rotations, harmonics = _columns(data, count, widths)
    sh = np.empty((count, 1 + higher, 3))
    sh[:, 0] = (colours / 255.0 - 0.5) / COLOUR
    sh[:, 1:] = (harmonics.reshape(count, higher, 3) - 128.0) / 128.0
    return from_arrays(
        _signed(places) / 2.0**bits,
        np.roll(_first_three(rotations) if version == 2 else _smallest_three(rotations), 1, axis=1),
        scales / SCALE_STEPS + FIRST_SCALE,
        alphas[:, 0] / 255.0,
        sh,
    )


def _columns(data: bytes, count: int, widths: tuple[int, ...]) -> list[UInt8[np.ndarray, "N _"]]:
    """The columns behind each other, as [count, width]."""
    found, at = [], HEADER.size
    for width in widths:
        found.append(np.frombuffer(data, np.uint8, count * width, at).reshape(count, width))
        at += count * width
    return found


def _signed(places: UInt8[np.ndarray, "N 9"]) -> Float[np.ndarray, "N 3"]:
    """Whole numbers of three bytes, the lowest first."""
    padded = np.zeros((len(places), 3, 4), np.uint8)
    padded[..., 1:] = places.reshape(-1, 3, 3)
    return (padded.view("<i4")[..., 0] >> 8).astype(np.float64)


def _first_three(rotations: UInt8[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 4"]:
    """Quaternions x y z w of version 2, w positive."""
    return completed(rotations / 127.5 - 1.0, np.full(len(rotations), 3))


def _smallest_three(rotations: UInt8[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
    """Quaternions x y z w of version 3."""
    words = np.ascontiguousarray(rotations).view("<u4")
    fields = words >> np.array([20, 10, 0], np.uint32)
    sizes = (fields & 511) / (511.0 * np.sqrt(2.0))
    return completed(np.where(fields & 512, -sizes, sizes), (words[:, 0] >> 30).astype(np.int64))
