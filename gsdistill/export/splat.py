"""The format of antimatter15's viewer, which most others read: 32 bytes a Gaussian, without view-dependent colours.

Only harmonics of degree 0 are stored, as colours that are cut off to 0..1. :mod:`gsdistill.scene.formats.splat`
describes the layout. gsplat's writer is not used: it truncates numbers that it should round.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.export._losses import cut_off
from gsdistill.export.base import Writer
from gsdistill.scene.formats.splat import ROW
from gsdistill.scene.limits import NARROWEST, WIDEST

__all__ = ["Splat"]


@dataclass(frozen=True)
class Splat(Writer):
    """The layout of antimatter15's viewer."""

    highest_degree: ClassVar[int] = 0

    def encode(self, gaussians: Gaussians, draft: Path) -> list[str]:
        """Write all Gaussians in the order of the scene."""
        rows = np.empty(len(gaussians), ROW)
        rows["means"] = gaussians.means.numpy()
        rows["deviations"] = gaussians.scales.clamp(NARROWEST, WIDEST).exp().numpy()
        base = 0.5 + SH_C0 * gaussians.sh[:, 0]
        rgba = torch.cat([base, gaussians.opacities.sigmoid()[:, None]], dim=1)
        rows["colours"] = _bytes(255 * rgba)
        rows["quats"] = _bytes(128 + 128 * gaussians.quats)
        draft.write_bytes(rows.tobytes())
        notes = ["view-dependent colour is left out: .splat cannot hold it"] if gaussians.sh[:, 1:].any() else []
        notes += cut_off("scales", gaussians.scales, NARROWEST, WIDEST)
        return notes + cut_off("colours", base, 0.0, 1.0)


def _bytes(values: Tensor) -> np.ndarray:
    return values.round().clamp(0, 255).to(torch.uint8).numpy()
