"""Bits in chunks, a quarter of a PLY: PlayCanvas' compressed layout, for SuperSplat, PlayCanvas and Spark.

Chunks of 256 Gaussians share their bounds; within them positions and scales have 11, 10 and 11 bits, colours and
opacities 8, rotations 32 in all, harmonics above degree 0 8 from -4 to 4. gsply writes it: gsplat's writer announces an
empty table of harmonics at degree 0, by which readers refuse the file, and drops what is nearly transparent.
Source: PlayCanvas, developer.playcanvas.com, Compressed PLY.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from gsdistill.export.base import Writer
from gsdistill.structs import Gaussians

if TYPE_CHECKING:
    from gsply import GSData

__all__ = ["CompressedPly", "gsply_data"]

OPAQUE = 20.0  # a logit beyond any byte of opacity, and far from what its exponential can hold


@dataclass(frozen=True)
class CompressedPly(Writer):
    """PlayCanvas' compressed PLY."""

    needs_extra: ClassVar[bool] = True

    def encode(self, gaussians: Gaussians, draft: Path) -> None:
        """Write all Gaussians in their order."""
        from gsply import compress_to_bytes

        draft.write_bytes(compress_to_bytes(gsply_data(gaussians)))


def gsply_data(gaussians: Gaussians) -> GSData:
    """The same parameters as gsply holds them: harmonics of degree 0 apart, the others absent where there are none."""
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
