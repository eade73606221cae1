"""Reading SOG of version 2, and of the first that names none: pictures in a ZIP under a description, meta.json.

A pixel of a picture belongs to one Gaussian, the same in all pictures:

    means_l, means_u  low and high byte of sign(m) log(1 + |m|) between its bounds
    quats             the three smaller components over -sqrt(1/2) .. sqrt(1/2), and 252 + the place of the largest
    scales            logarithms, each by its place in a codebook of 256
    sh0               harmonics of degree 0 by such a codebook, and opacity
    shN_labels        which entry of a palette holds all higher harmonics, low and high byte
    shN_centroids     the palette, 64 entries a row, by such a codebook

In the first version, bounds in 255 equal steps stand in place of every codebook, and opacity is a logit between such.
Read here, for gsply unpacks every picture before it looks at a size, and takes another package for pictures.
Source: PlayCanvas, developer.playcanvas.com, The SOG Format.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float, UInt8

from gsdistill.core.errors import BadFile
from gsdistill.core.structs import Gaussians
from gsdistill.disk.read import brief, parse_json
from gsdistill.scene.content import Content, completed, frame_of, from_arrays, options_of

__all__ = ["LARGEST_IS", "MAGIC", "ROW", "STEPS", "describes_splat", "flattened", "read", "unflattened"]

MAGIC = b"PK\x03\x04"
STEPS = 65535  # of a position between its bounds
ROW = 64  # palette entries in a row of pixels
LARGEST_IS = 252  # and the place of a quaternion's largest component
DESCRIPTION, LONGEST = "meta.json", 1 << 20  # bytes of it
# Bytes of pixels that any file may unpack to, and how many times as many as it has. A Gaussian has 24,
# and memory is taken for those alone that have their pixels. Packed, its place takes three bytes; in a grid, fewer.
FREE, TIMES = 32 << 20, 8
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # which can be unpacked in pieces


def flattened(means: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """Positions on the scale that is parted evenly: fine about the origin, coarse far out; float64."""
    return np.sign(means) * np.log1p(np.abs(means.astype(np.float64)))


def unflattened(logs: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """The inverse of :func:`flattened`."""
    with np.errstate(over="ignore"):
        return np.sign(logs) * np.expm1(np.abs(logs))


def read(data: bytes, path: Path) -> Content:
    """Return what a file holds.

    Raises:
        BadFile: another version, a part is missing or broken, or the pictures are larger than the file makes likely.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as bundle:
            given = _Bundle(bundle, path, max(FREE, TIMES * len(data)))
            return Content(path, given.gaussians(), frame_of(given.meta.get("asset"), path), "rdf")
    except BadFile:
        raise
    except BROKEN as error:
        raise BadFile(f"{path}: not a sound .sog file: {' '.join(str(error).split()) or 'it is cut off'}") from error


def describes_splat(file: BinaryIO) -> bool:
    """Whether a ZIP file has a description."""
    try:
        with zipfile.ZipFile(file) as bundle:
            return DESCRIPTION in bundle.namelist()
    except BROKEN:
        return False


class _Bundle:
    """The description and the pictures of one file."""

    def __init__(self, bundle: zipfile.ZipFile, path: Path, room: int) -> None:
        self._bundle, self._path, self._room = bundle, path, room
        try:
            text = self._member(DESCRIPTION, LONGEST).decode()
        except UnicodeDecodeError as error:
            raise self._wrong(f"{DESCRIPTION} is not UTF-8") from error
        self.meta = parse_json(text, f"{path}: {DESCRIPTION}")
        version = self.meta.get("version", 1)
        if version not in (1, 2):
            raise BadFile(f"{path}: is of SOG version {brief(version)}; only versions 1 and 2 are read")
        self._first = version == 1
        shape = self._part("means").get("shape") if self._first else None
        count = shape[0] if isinstance(shape, list) and shape else self.meta.get("count")
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise self._wrong(f"it holds {brief(count)} Gaussians")
        self._count = count

    def gaussians(self) -> Gaussians:
        """What they describe, in the axes of the file."""
        low, high = (self._numbers("means", end, 3) for end in ("mins", "maxs"))
        words = self._pixels("means")[:, :3] + (self._pixels("means", 1)[:, :3].astype(np.int64) << 8)
        turns, colours = self._pixels("quats"), self._pixels("sh0")
        if (turns[:, 3] < LARGEST_IS).any():
            raise self._wrong("its rotations are of another kind")
        quats = completed((turns[:, :3] / 127.5 - 1.0) / np.sqrt(2.0), turns[:, 3] - np.int64(LARGEST_IS))
        scales = self._values("scales", self._pixels("scales")[:, :3])
        sh = np.concatenate([self._values("sh0", colours[:, :3])[:, None], self._higher()], axis=1)
        splat = from_arrays(unflattened(low + (high - low) * (words / STEPS)), quats, scales, colours[:, 3] / 255.0, sh)
        if self._first:
            bottom, top = (self._numbers("sh0", end, 4)[3] for end in ("mins", "maxs"))
            splat.opacities.numpy()[:] = bottom + (top - bottom) * (colours[:, 3] / 255.0)
        own = options_of(self.meta.get("asset"), self._path)
        return replace(splat, options=replace(own, antialiased=self.meta.get("antialias") is True))

    def _higher(self) -> Float[np.ndarray, "N K 3"]:
        """The harmonics above degree 0, none where there is no palette."""
        if self.meta.get("shN") is None:
            return np.zeros((self._count, 0, 3), np.float32)
        labels, palette = self._pixels("shN", 1), self._picture("shN", 0)[..., :3]
        degree = {(band + 1) ** 2 - 1: band for band in (1, 2, 3)}.get(palette.shape[1] // ROW)
        bands = degree if self._first else self._part("shN").get("bands")
        if degree is None or palette.shape[1] % ROW or bands != degree:
            raise self._wrong(f"a palette {palette.shape[1]} pixels wide is none of harmonics of degree {brief(bands)}")
        entries = palette.reshape(-1, (degree + 1) ** 2 - 1, 3)
        entry = labels[:, 0] + (labels[:, 1].astype(np.int64) << 8)
        if entry.max() >= len(entries):
            raise self._wrong(f"its palette has {len(entries):,} entries, and entry {entry.max():,} is asked for")
        return self._values("shN", entries)[entry]

    def _values(self, name: str, places: UInt8[np.ndarray, "*S"]) -> Float[np.ndarray, "*S"]:
        """What bytes stand for, float32: by a codebook, or, in the first version, between bounds."""
        with np.errstate(over="ignore"):
            if not self._first:
                return self._numbers(name, "codebook", 256).astype(np.float32)[places]
            width = {"scales": 3, "sh0": 4, "shN": 1}[name]
            low, high = (self._numbers(name, end, width)[:3] for end in ("mins", "maxs"))
            return (low + (high - low) * (places / 255.0)).astype(np.float32)

    def _pixels(self, name: str, which: int = 0) -> UInt8[np.ndarray, "N 4"]:
        """The pixels of all Gaussians."""
        pixels = self._picture(name, which).reshape(-1, 4)
        if len(pixels) < self._count:
            raise self._wrong(f"a picture of '{name}' has {len(pixels):,} pixels for {self._count:,} Gaussians")
        return pixels[: self._count]

    def _picture(self, name: str, which: int) -> UInt8[np.ndarray, "H W 4"]:
        """A picture as red, green, blue and opacity, its size looked at before it is unpacked."""
        from PIL import Image

        files = self._part(name).get("files")
        file = files[which] if isinstance(files, list) and which < len(files) else None
        if not isinstance(file, str):
            raise self._wrong(f"its part '{name}' names no file")
        try:
            with Image.open(io.BytesIO(self._member(file, self._room)), formats=("WEBP", "PNG")) as image:
                self._spend(4 * image.width * image.height)
                return np.asarray(image.convert("RGBA"))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise self._wrong(f"'{file}' is no sound picture") from error

    def _member(self, name: str, most: int) -> bytes:
        """What is packed under a name."""
        try:
            info = self._bundle.getinfo(name)
        except KeyError:
            raise self._wrong(f"'{name}' is missing") from None
        if info.compress_type not in PACKINGS:
            raise self._wrong(f"'{name}' is packed in a way that is not read")
        with self._bundle.open(info) as member:
            data = member.read(most + 1)
        if len(data) > most:
            raise self._wrong(f"'{name}' unpacks to more than {most:,} bytes")
        return data

    def _spend(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise self._wrong("its pictures unpack to far more than it holds")

    def _part(self, name: str) -> Mapping[str, Any]:
        part = self.meta.get(name)
        if not isinstance(part, dict):
            raise self._wrong(f"{DESCRIPTION} has no part '{name}'")
        return part

    def _numbers(self, name: str, key: str, count: int) -> Float[np.ndarray, "_"]:
        """Numbers of the description, ``count`` of them, float64."""
        given = self._part(name).get(key)
        values = given if isinstance(given, list) else [given]
        whole = all(isinstance(value, (int, float)) and abs(value) < 1e300 for value in values)
        if not whole or len(values) != count:
            raise self._wrong(f"{DESCRIPTION} is to have {count} numbers under {name}.{key}")
        return np.array(values, np.float64)

    def _wrong(self, what: str) -> BadFile:
        return BadFile(f"{self._path}: not a sound .sog file; {what}")
