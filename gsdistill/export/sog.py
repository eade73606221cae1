"""SOG of version 2: pictures in a ZIP file, the smallest format for large scenes; for SuperSplat, PlayCanvas and Spark.

:mod:`gsdistill.scene.formats.sog` describes the content of each picture. Neighbours in space are close in a picture,
and meta.json names the axes. The pictures are lossless WebP, written by pillow. The rest is written here, because
gaussforge, the only package that writes SOG, computes its palette by k-means, which takes minutes for 100,000
Gaussians, and the palette here (by medians) takes seconds.

Source: PlayCanvas, developer.playcanvas.com, The SOG Format.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8

from gsdistill import __version__
from gsdistill.core.structs import Gaussians
from gsdistill.export._codebook import codebook, palette
from gsdistill.export._losses import displaced
from gsdistill.export.base import Writer
from gsdistill.scene.content import OTHERS, described
from gsdistill.scene.formats.sog import LARGEST_IS, ROW, STEPS, flattened, unflattened

__all__ = ["Sog"]

Part: TypeAlias = tuple[dict[str, object], dict[str, np.ndarray]]  # an entry of meta.json, and pictures by file name


@dataclass(frozen=True)
class Sog(Writer):
    """PlayCanvas' spatially ordered Gaussians, in one file."""

    read_by_all: ClassVar[frozenset[str]] = frozenset({"antialiased"})
    read_by_us: ClassVar[bool] = True

    def encode(self, gaussians: Gaussians, draft: Path) -> list[str]:
        """Write all Gaussians, neighbours together."""
        order = _along_curve(flattened(gaussians.means.numpy()))
        arrays = {name: value.numpy()[order] for name, value in gaussians.tensors().items()}
        parts = {
            "means": _means(arrays["means"]),
            "scales": _scales(arrays["scales"]),
            "quats": _quats(arrays["quats"]),
            "sh0": _colours(arrays["sh"][:, 0], gaussians.opacities.sigmoid().numpy()[order]),
        }
        if gaussians.sh_degree:
            parts["shN"] = _harmonics(arrays["sh"][:, 1:], gaussians.sh_degree)
        meta: dict[str, object] = {
            "version": 2,
            "asset": {"generator": f"gsdistill {__version__}", **described(gaussians, self.axes)},
        }
        meta |= {"count": len(gaussians), "antialias": gaussians.options.antialiased}
        meta |= {name: {**entry, "files": list(pictures)} for name, (entry, pictures) in parts.items()}
        with zipfile.ZipFile(draft, "w") as bundle:
            bundle.writestr(zipfile.ZipInfo("meta.json"), json.dumps(meta))
            for _, pictures in parts.values():
                for name, pixels in pictures.items():
                    bundle.writestr(zipfile.ZipInfo(name), _webp(pixels))
        return displaced(gaussians, torch.from_numpy(_rounded(gaussians.means.numpy())))


def _steps(means: Float[np.ndarray, "N 3"]) -> tuple[Float[np.ndarray, "N 3"], np.ndarray, np.ndarray]:
    """Positions as the numbers 0..STEPS that the file stores, and the bounds [3] of the flattened positions."""
    logs = flattened(means)
    low, high = logs.min(0), logs.max(0)
    return np.round(_share(logs, low, high) * STEPS), low, high


def _means(means: Float[np.ndarray, "N 3"]) -> Part:
    steps, low, high = _steps(means)
    words = steps.astype(np.uint16)
    pictures = {"means_l.webp": _tiled(words & 255), "means_u.webp": _tiled(words >> 8)}
    return {"mins": low.tolist(), "maxs": high.tolist()}, pictures


def _rounded(means: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """The positions as the file stores them."""
    steps, low, high = _steps(means)
    return unflattened(low + steps / STEPS * (high - low))


def _scales(scales: Float[np.ndarray, "N 3"]) -> Part:
    book, places = codebook(scales)
    return {"codebook": book.tolist()}, {"scales.webp": _tiled(places)}


def _quats(quats: Float[np.ndarray, "N 4"]) -> Part:
    largest = np.abs(quats).argmax(1)
    sign = np.where(np.take_along_axis(quats, largest[:, None], 1) < 0, -1.0, 1.0)
    rest = sign * np.take_along_axis(quats, OTHERS[largest], 1)
    places = np.round((rest * np.sqrt(2) + 1) * 127.5).clip(0, 255)
    return {}, {"quats.webp": _tiled(np.column_stack([places, LARGEST_IS + largest]))}


def _colours(sh: Float[np.ndarray, "N 3"], opacities: Float[np.ndarray, "N"]) -> Part:
    book, places = codebook(sh)
    return {"codebook": book.tolist()}, {"sh0.webp": _tiled(np.column_stack([places, np.round(opacities * 255)]))}


def _harmonics(sh: Float[np.ndarray, "N K 3"], degree: int) -> Part:
    count, K, _ = sh.shape
    entries, labels = palette(sh.reshape(count, 3 * K))
    book, places = codebook(entries)
    rows = -(-len(entries) // ROW)
    centroids = np.zeros((rows * ROW, 3 * K), np.uint8)
    centroids[: len(entries)] = places
    pictures = {
        "shN_centroids.webp": centroids.reshape(rows, ROW * K, 3),
        "shN_labels.webp": _tiled(np.column_stack([labels & 255, labels >> 8, np.zeros_like(labels)])),
    }
    return {"count": len(entries), "bands": degree, "codebook": book.tolist()}, pictures


def _share(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where values lie between the bounds of their columns, 0..1; 0 where those are one."""
    return (values - low) / np.where(high > low, high - low, 1.0)


def _along_curve(places: Float[np.ndarray, "N 3"]) -> Int[np.ndarray, "N"]:
    """The indices of the points in their order on a Morton curve through a grid of 1024^3 cells."""
    cells = (_share(places, places.min(0), places.max(0)) * 1023).astype(np.int64)
    code = np.zeros(len(places), np.int64)
    for bit in range(10):
        for axis in range(3):
            code |= (cells[:, axis] >> bit & 1) << (3 * bit + axis)
    return np.argsort(code, kind="stable")


def _tiled(values: Shaped[np.ndarray, "N C"]) -> UInt8[np.ndarray, "H W C"]:
    """N rows of C = 3 or 4 bytes as an almost square picture; pixels after the last row are 0."""
    side = int(np.ceil(np.sqrt(len(values))))
    pixels = np.zeros((-(-len(values) // side) * side, values.shape[1]), np.uint8)
    pixels[: len(values)] = values
    return pixels.reshape(-1, side, values.shape[1])


def _webp(pixels: UInt8[np.ndarray, "H W C"]) -> bytes:
    """Encode as lossless WebP; ``exact`` keeps the colours of pixels whose alpha is 0."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="WEBP", lossless=True, exact=True)
    return buffer.getvalue()
