"""SPZ of version 3: gzipped columns of bytes, a fifth of a PLY; for Spark, three.js, Babylon.js and SuperSplat.

Positions have 24 bits in steps of 1/4096, up to 2048; a scene that reaches farther is refused. Logarithms of scales are
bytes in steps of 1/16 from -10 on, rotations have 32 bits, and harmonics above degree 0 are bytes from -1 to 1, cut off
there.

The axes of SPZ are right, up, back. The scene in the axes of a PLY (right, down, front) is rotated to these here, and
readers rotate it back, so that an object is upright in programs that do not rotate.

Version 2 is not written: its rotations have three bytes and errors of up to 12 degrees. Many readers lack version 4.
gsply writes eight bits of each harmonic; the format's own library by default keeps five of degree 1 and four of others.
Source: Niantic Spatial, github.com/nianticlabs/spz.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from gsdistill.core.errors import OutputError
from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.export._losses import cut_off, displaced
from gsdistill.export.base import Writer
from gsdistill.export.compressed_ply import gsply_data
from gsdistill.scene.formats.spz import ANTIALIASED, COLOUR, DOWN_FRONT_TO_UP_BACK, FIRST_SCALE, SCALE_STEPS
from gsdistill.scene.turn import turned

__all__ = ["Spz"]

VERSION, FLAGS = 3, 14  # the format's version; the place of the byte of flags in the header
STEPS = 4096.0  # of a position, per unit
FARTHEST = 2048.0 - 1.0 / STEPS  # largest coordinate
SCALES = (FIRST_SCALE, FIRST_SCALE + 255 / SCALE_STEPS)
COLOURS = (0.5 - 0.5 * SH_C0 / COLOUR, 0.5 + 0.5 * SH_C0 / COLOUR)


@dataclass(frozen=True)
class Spz(Writer):
    """Niantic's packed format."""

    needs_extra: ClassVar[bool] = True
    read_by_all: ClassVar[frozenset[str]] = frozenset({"antialiased"})

    def encode(self, gaussians: Gaussians, draft: Path) -> list[str]:
        """Write all Gaussians in the order of the scene; the header has no time, so that equal scenes give equal bytes.

        Raises:
            OutputError: a position is out of the format's range.
        """
        from gsply import write_spz

        largest = float(gaussians.means.abs().max())
        if largest > FARTHEST:
            raise OutputError(f".spz holds positions up to 2048, not {largest:g}; .ply and .sog hold any")
        write_spz(draft, gsply_data(turned(gaussians, torch.tensor(DOWN_FRONT_TO_UP_BACK))), version=VERSION)
        packed = draft.read_bytes()
        if gaussians.options.antialiased:  # gsply has no option for it
            plain = bytearray(gzip.decompress(packed))
            plain[FLAGS] |= ANTIALIASED
            packed = gzip.compress(plain)
        draft.write_bytes(packed[:4] + bytes(4) + packed[8:])  # bytes 4 to 7 of gzip's header are the time
        notes = displaced(gaussians, (gaussians.means.double() * STEPS).round() / STEPS)
        notes += cut_off("scales", gaussians.scales, *SCALES)
        notes += cut_off("colours", 0.5 + SH_C0 * gaussians.sh[:, 0], *COLOURS)
        return notes + cut_off("harmonics above degree 0", gaussians.sh[:, 1:], -1.0, 1.0)
