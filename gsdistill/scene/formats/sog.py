"""Reading SOG of version 2, and of version 1, whose files name none: a ZIP of pictures and a description, meta.json.

A pixel of a picture belongs to one Gaussian, the same in all pictures:

    means_l, means_u  low and high byte of sign(m) log(1 + |m|) between its bounds
    quats             the three smaller components over -sqrt(1/2) .. sqrt(1/2), and 252 + the place of the largest
    scales            logarithms, each by its place in a codebook of 256
    sh0               harmonics of degree 0 by such a codebook, and opacity
    shN_labels        which entry of a palette holds all higher harmonics, low and high byte
    shN_centroids     the palette, 64 entries a row, by such a codebook

Version 1 has two bounds, 255 equal steps apart, in place of every codebook, and opacity is a logit between such bounds.
gsply's reader is not used because it unpacks every picture before it checks a size, and needs another package for that.
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
LARGEST_IS = 252  # plus the place of a quaternion's largest component
DESCRIPTION, LONGEST = "meta.json", 1 << 20  # bytes of it
# A file may unpack to FREE bytes of pixels, or to TIMES its own size if that is more. A Gaussian has 24 such bytes;
# packed, its position alone takes three, or fewer where positions form a grid.
FREE, TIMES = 32 << 20, 8
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # which can be unpacked in pieces


def flattened(means: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """Positions on the scale whose steps are equal: fine near the origin, coarse far out; float64."""
    return np.sign(means) * np.log1p(np.abs(means.astype(np.float64)))


def unflattened(logs: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """The inverse of :func:`flattened`."""
    with np.errstate(over="ignore"):
        return np.sign(logs) * np.expm1(np.abs(logs))


def read(data: bytes, path: Path) -> Content:
    """Return the splat of a file.

    Raises:
        BadFile: the version is another one, a part is missing or broken, or the pictures unpack to more than the file's
            size makes likely.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            bundle = _Bundle(archive, path, max(FREE, TIMES * len(data)))
            return Content(path, bundle.gaussians(), frame_of(bundle.meta.get("asset"), path), "rdf")
    except BadFile:
        raise
    except BROKEN as error:
        raise BadFile(f"{path}: not a sound .sog file: {' '.join(str(error).split()) or 'it is cut off'}") from error


def describes_splat(file: BinaryIO) -> bool:
    """Whether a file is a ZIP with a description."""
    try:
        with zipfile.ZipFile(file) as archive:
            return DESCRIPTION in archive.namelist()
    except BROKEN:
        return False


class _Bundle:
    """The description and the pictures of one file; ``room`` is how many bytes its pictures may take unpacked."""

    def __init__(self, archive: zipfile.ZipFile, path: Path, room: int) -> None:
        self._archive, self._path, self._room = archive, path, room
        try:
            text = self._read_member(DESCRIPTION, LONGEST).decode()
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
        """Return the Gaussians in the axes of the file."""
        low, high = (self._numbers("means", end, 3) for end in ("mins", "maxs"))
        words = self._read_pixels("means")[:, :3] + (self._read_pixels("means", 1)[:, :3].astype(np.int64) << 8)
        turns, colours = self._read_pixels("quats"), self._read_pixels("sh0")
        if (turns[:, 3] < LARGEST_IS).any():
            raise self._wrong("its rotations are of another kind")
        quats = completed((turns[:, :3] / 127.5 - 1.0) / np.sqrt(2.0), turns[:, 3] - np.int64(LARGEST_IS))
        scales = self._values("scales", self._read_pixels("scales")[:, :3])
        sh = np.concatenate([self._values("sh0", colours[:, :3])[:, None], self._higher()], axis=1)
        splat = from_arrays(unflattened(low + (high - low) * (words / STEPS)), quats, scales, colours[:, 3] / 255.0, sh)
        if self._first:
            bottom, top = (self._numbers("sh0", end, 4)[3] for end in ("mins", "maxs"))
            splat.opacities.numpy()[:] = bottom + (top - bottom) * (colours[:, 3] / 255.0)
        own = options_of(self.meta.get("asset"), self._path)
        return replace(splat, options=replace(own, antialiased=self.meta.get("antialias") is True))

    def _higher(self) -> Float[np.ndarray, "N K 3"]:
        """The harmonics above degree 0; none if there is no palette."""
        if self.meta.get("shN") is None:
            return np.zeros((self._count, 0, 3), np.float32)
        labels, palette = self._read_pixels("shN", 1), self._read_picture("shN", 0)[..., :3]
        degree = {(band + 1) ** 2 - 1: band for band in (1, 2, 3)}.get(palette.shape[1] // ROW)
        bands = degree if self._first else self._part("shN").get("bands")
        if degree is None or palette.shape[1] % ROW or bands != degree:
            raise self._wrong(f"a palette {palette.shape[1]} pixels wide holds no harmonics of degree {brief(bands)}")
        entries = palette.reshape(-1, (degree + 1) ** 2 - 1, 3)
        entry = labels[:, 0] + (labels[:, 1].astype(np.int64) << 8)
        if entry.max() >= len(entries):
            raise self._wrong(f"its palette has {len(entries):,} entries, and entry {entry.max():,} is asked for")
        return self._values("shN", entries)[entry]

    def _values(self, name: str, places: UInt8[np.ndarray, "*S"]) -> Float[np.ndarray, "*S"]:
        """The numbers that bytes stand for, float32: from a codebook or, in version 1, between bounds."""
        with np.errstate(over="ignore"):
            if not self._first:
                return self._numbers(name, "codebook", 256).astype(np.float32)[places]
            width = {"scales": 3, "sh0": 4, "shN": 1}[name]
            low, high = (self._numbers(name, end, width)[:3] for end in ("mins", "maxs"))
            return (low + (high - low) * (places / 255.0)).astype(np.float32)

    def _read_pixels(self, name: str, which: int = 0) -> UInt8[np.ndarray, "N 4"]:
        """The pixels of all Gaussians in a picture."""
        pixels = self._read_picture(name, which).reshape(-1, 4)
        if len(pixels) < self._count:
            raise self._wrong(f"a picture of '{name}' has {len(pixels):,} pixels for {self._count:,} Gaussians")
        return pixels[: self._count]

    def _read_picture(self, name: str, which: int) -> UInt8[np.ndarray, "H W 4"]:
        """Unpack a picture as red, green, blue and opacity, after a check of its size."""
        from PIL import Image

        files = self._part(name).get("files")
        file = files[which] if isinstance(files, list) and which < len(files) else None
        if not isinstance(file, str):
            raise self._wrong(f"its part '{name}' names no file")
        try:
            with Image.open(io.BytesIO(self._read_member(file, self._room)), formats=("WEBP", "PNG")) as image:
                self._room -= 4 * image.width * image.height
                if self._room < 0:
                    raise self._wrong("its pictures unpack to far more than it holds")
                return np.asarray(image.convert("RGBA"))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise self._wrong(f"'{file}' is no sound picture") from error

    def _read_member(self, name: str, most: int) -> bytes:
        """Unpack the member of that name, which may have ``most`` bytes."""
        try:
            info = self._archive.getinfo(name)
        except KeyError:
            raise self._wrong(f"'{name}' is missing") from None
        if info.compress_type not in PACKINGS:
            raise self._wrong(f"'{name}' is packed in a way that is not read")
        with self._archive.open(info) as member:
            data = member.read(most + 1)
        if len(data) > most:
            raise self._wrong(f"'{name}' unpacks to more than {most:,} bytes")
        return data

    def _part(self, name: str) -> Mapping[str, Any]:
        part = self.meta.get(name)
        if not isinstance(part, dict):
            raise self._wrong(f"{DESCRIPTION} has no part '{name}'")
        return part

    def _numbers(self, name: str, key: str, count: int) -> Float[np.ndarray, "_"]:
        """The ``count`` numbers under a key of the description, float64."""
        entry = self._part(name).get(key)
        values = entry if isinstance(entry, list) else [entry]
        whole = all(isinstance(value, (int, float)) and abs(value) < 1e300 for value in values)
        if not whole or len(values) != count:
            raise self._wrong(f"{DESCRIPTION} must have {count} numbers under {name}.{key}")
        return np.array(values, np.float64)

    def _wrong(self, what: str) -> BadFile:
        return BadFile(f"{self._path}: not a sound .sog file; {what}")
