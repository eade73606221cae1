"""Binary glTF 2.0 with KHR_gaussian_splatting; viewers without this extension show a cloud of coloured points.

A GLB file is a header and two chunks: a JSON text, and the numbers that it refers to. The length of each is a multiple
of four bytes. :mod:`gsdistill.scene.formats.glb` describes what the extension stores of each Gaussian, in float32.

Colours are blended as sRGB values ("srgb_rec709_display"). COLOR_0 of the points is the base colour with the opacity,
linear as glTF demands, in bytes, because some readers do not read other integers correctly.

Source: Khronos, KHR_gaussian_splatting, ratified 2026; glTF 2.0 specification, sections 3.6, 3.7.2.1 and 4.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gsdistill import __version__
from gsdistill.core.frames import Frame
from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.export._losses import cut_off
from gsdistill.export.base import Writer
from gsdistill.scene.content import described
from gsdistill.scene.formats.glb import COLOR_SPACE, COMPONENTS, EXTENSION, KERNEL, SHAPES, bands
from gsdistill.scene.limits import NARROWEST, WIDEST
from gsdistill.scene.surface import to_linear

__all__ = ["Glb"]

POINTS, ARRAY_BUFFER = 0, 34962
COMPONENT_OF = {np.dtype(kind): code for code, kind in COMPONENTS.items()}
SHAPE_OF = {width: name for name, width in SHAPES.items()}


@dataclass(frozen=True)
class Glb(Writer):
    """Binary glTF with the extension KHR_gaussian_splatting."""

    expected: ClassVar[Frame] = "y-up"
    read_by_us: ClassVar[bool] = True

    def encode(self, gaussians: Gaussians, draft: Path) -> list[str]:
        """Write means, rotations and colours bit for bit, scales as deviations and opacities as 0..1."""
        columns = _attributes(gaussians)
        text = json.dumps(_document(columns, described(gaussians, self.axes)), separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        size = sum(column.nbytes for column in columns.values())
        with draft.open("wb") as file:
            file.write(struct.pack("<4sIII4s", b"glTF", 2, 28 + len(text) + size, len(text), b"JSON") + text)
            file.write(struct.pack("<I4s", size, b"BIN\0"))
            for column in columns.values():
                column.numpy().tofile(file)
        return cut_off("scales", gaussians.scales, NARROWEST, WIDEST)


def _attributes(gaussians: Gaussians) -> dict[str, Tensor]:
    """The attributes of the points by name, one row per Gaussian; the size of a row is a multiple of four bytes."""
    w, xyz = gaussians.quats.split([1, 3], dim=1)
    opacities = gaussians.opacities.sigmoid()[:, None]
    base = (0.5 + SH_C0 * gaussians.sh[:, 0]).clamp(0.0, 1.0)
    fallback = torch.cat([to_linear(base), opacities], dim=1)
    return {
        "POSITION": gaussians.means,
        "COLOR_0": (fallback * 255).round().to(torch.uint8),
        f"{EXTENSION}:ROTATION": torch.cat([xyz, w], dim=1),
        f"{EXTENSION}:SCALE": gaussians.scales.clamp(NARROWEST, WIDEST).exp(),
        f"{EXTENSION}:OPACITY": opacities,
        **{name: gaussians.sh[:, k].contiguous() for k, name in enumerate(bands(gaussians.sh_degree))},
    }


def _document(columns: dict[str, Tensor], extras: dict[str, Any]) -> dict[str, Any]:
    """The JSON of one point primitive, whose attributes follow each other in the buffer."""
    views, offset = [], 0
    for column in columns.values():
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": column.nbytes, "target": ARRAY_BUFFER})
        offset += column.nbytes
    accessors = [_accessor(view, column) for view, column in enumerate(columns.values())]
    means = columns["POSITION"]
    accessors[0] |= {"min": means.amin(dim=0).tolist(), "max": means.amax(dim=0).tolist()}
    primitive = {
        "mode": POINTS,
        "attributes": {name: place for place, name in enumerate(columns)},
        "extensions": {EXTENSION: {"kernel": KERNEL, "colorSpace": COLOR_SPACE}},
    }
    return {
        "asset": {"version": "2.0", "generator": f"gsdistill {__version__}", "extras": extras},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": offset}],
    }


def _accessor(view: int, column: Tensor) -> dict[str, Any]:
    """The type of the rows in a buffer view; integers represent 0..1."""
    count, width = column.shape
    return {
        "bufferView": view,
        "componentType": COMPONENT_OF[column.numpy().dtype],
        "normalized": not column.is_floating_point(),
        "count": count,
        "type": SHAPE_OF[width],
    }
