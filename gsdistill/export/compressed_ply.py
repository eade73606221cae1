"""PlayCanvas' compressed PLY, a quarter of the size of a PLY; for SuperSplat, PlayCanvas and Spark.

Every 256 consecutive Gaussians of the file are a chunk with common bounds. Within these, the three coordinates of
positions and scales have 11, 10 and 11 bits, each colour channel and the opacity 8. A rotation has 32 bits, and each
harmonic above degree 0 has 8, from -4 to 4. So Gaussians are written in an order in which neighbours share a chunk, and
those far from all others have chunks of their own. A chunk that is not full is filled up with invisible Gaussians of
opacity 0 at the position of its first, and a comment counts them. The other comments are those of a PLY.

It is written by gsply. gsplat's writer declares an empty table of harmonics at degree 0, for which readers refuse the
file, and leaves out nearly transparent Gaussians.
Source: PlayCanvas, developer.playcanvas.com, Compressed PLY.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.structs import Gaussians
from gsdistill.export._chunks import chunks, filled
from gsdistill.export._losses import cut_off, displaced
from gsdistill.export.base import Writer
from gsdistill.export.ply import comments_of
from gsdistill.scene.formats.compressed_ply import CHUNK, FARTHEST, FILLING, STEPS
from gsdistill.scene.limits import NARROWEST, OPAQUE, WIDEST

if TYPE_CHECKING:
    from gsply import GSData

__all__ = ["CompressedPly", "gsply_data"]

FORMAT = b"format binary_little_endian 1.0\n"


@dataclass(frozen=True)
class CompressedPly(Writer):
    """PlayCanvas' compressed PLY."""

    needs_extra: ClassVar[bool] = True
    read_by_us: ClassVar[bool] = True

    def encode(self, gaussians: Gaussians, draft: Path) -> list[str]:
        """Write all Gaussians, neighbours together."""
        from gsply import compress_to_bytes

        order, filling = (torch.from_numpy(array) for array in filled(chunks(gaussians)))
        rows = gaussians.each(lambda value: value[order])
        added, content = int(filling.sum()), ~filling
        notes = displaced(rows.each(lambda value: value[content]), _rounded(rows.means)[content])
        notes += cut_off("scales", gaussians.scales, NARROWEST, WIDEST)
        notes += cut_off("harmonics above degree 0", gaussians.sh[:, 1:], -FARTHEST, FARTHEST)
        data = compress_to_bytes(gsply_data(replace(rows, opacities=rows.opacities.masked_fill(filling, -OPAQUE))))
        comments = comments_of(gaussians, self.axes)
        if added:
            comments.append(f"{FILLING} {added}")
            notes.append(f"{added:,} invisible Gaussians are added, so that distant Gaussians need not share bounds")
        header = "".join(f"comment {line}\n" for line in comments)
        draft.write_bytes(data.replace(FORMAT, FORMAT + header.encode(), 1))
        return notes


def _rounded(means: Float[Tensor, "M 3"]) -> Float[Tensor, "M 3"]:
    """The positions as the file stores them, rounded between the bounds of their chunks, float64."""
    places, starts = means.double().numpy(), np.arange(0, len(means), CHUNK)
    chunk, steps = np.arange(len(means)) // CHUNK, np.array(STEPS)
    low, high = (end.reduceat(places, starts)[chunk] for end in (np.minimum, np.maximum))
    width = np.where(high > low, high - low, 1.0)
    return torch.from_numpy(low + np.round((places - low) / width * steps) / steps * width)


def gsply_data(gaussians: Gaussians) -> GSData:
    """The scene in gsply's structure, with opacities limited to its range."""
    from gsply import GSData

    return GSData.from_arrays(
        means=gaussians.means.numpy(),
        scales=gaussians.scales.numpy(),
        quats=gaussians.quats.numpy(),
        opacities=gaussians.opacities.clamp(-OPAQUE, OPAQUE).numpy(),
        sh0=gaussians.sh[:, 0].numpy(),
        shN=gaussians.sh[:, 1:].numpy() if gaussians.sh_degree else None,
        format="ply",
    )
