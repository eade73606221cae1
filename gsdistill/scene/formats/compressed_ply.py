"""Reading PlayCanvas' compressed PLY: 16 bytes a Gaussian between bounds that 256 of them share.

element chunk     min_x max_x, the same of y z, of scale_x scale_y scale_z (logarithms) and, in newer files, of r g b
element vertex    packed_position and packed_scale, 11 10 11 bits; packed_rotation, 2 bits for the place of the largest
                  among w x y z and 10 for each other over -sqrt(1/2)..sqrt(1/2); packed_color, red green blue opacity
element sh        f_rest_0 and on, channel-major as in a PLY, bytes: the middle of 256 equal parts of -4..4, and their
                  ends for 0 and 255

gsdistill fills up chunks with invisible copies of their first Gaussian, and a comment counts them: they are left out
here. gsply's reader is not used because it does not check the counts against the size of the file.
Source: PlayCanvas, developer.playcanvas.com, Compressed PLY.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, UInt8, UInt32

from gsdistill.core.errors import BadFile
from gsdistill.core.structs import SH_C0
from gsdistill.scene.content import Content, completed, from_arrays
from gsdistill.scene.ply import Columns, Vertices

__all__ = ["CHUNK", "FARTHEST", "FILLING", "STEPS", "is_packed", "read"]

CHUNK = 256
STEPS = (2047, 1023, 2047)  # of a position between the bounds of its chunk
FARTHEST = 4.0  # harmonics above degree 0
FILLING = "invisible Gaussians that fill up chunks:"  # the comment that counts them
PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
XYZ, RGB = ("x", "y", "z"), ("r", "g", "b")


def is_packed(vertices: Vertices) -> bool:
    """Whether a PLY has this layout."""
    return PACKED[0] in vertices.columns


def read(vertices: Vertices) -> Content:
    """Return the splat that the vertices and tables describe.

    Raises:
        BadFile: a property is missing or of another type, there are too few chunks or harmonics, or as
            :attr:`gsdistill.scene.ply.Vertices.options`.
    """
    position, rotation, scale, color = (_words(vertices, name) for name in PACKED)
    bounds, of = _bounds(vertices), np.arange(len(position)) // CHUNK
    rgba = _shares(color, (24, 16, 8, 0), (255, 255, 255, 255))
    colours = _between(bounds, RGB, rgba[:, :3], of) if "min_r" in bounds else rgba[:, :3]
    rest = (_shares(rotation, (20, 10, 0), (1023, 1023, 1023)) - 0.5) * np.sqrt(2.0)
    sh = np.concatenate([((colours - 0.5) / SH_C0)[:, None], _harmonics(vertices)], axis=1)
    splat = from_arrays(
        _between(bounds, XYZ, _shares(position, (21, 11, 0), STEPS), of),
        completed(rest, (rotation >> 30).astype(np.int64)),
        _between(bounds, tuple(f"scale_{axis}" for axis in XYZ), _shares(scale, (21, 11, 0), STEPS), of),
        rgba[:, 3],
        sh,
    )
    real = _real(vertices, np.stack([position, rotation, scale, color], axis=1))
    splat = replace(splat.each(lambda value: value[real]), options=vertices.options)
    return Content(vertices.path, splat, vertices.frame, "rdf")


def _words(vertices: Vertices, name: str) -> UInt32[np.ndarray, "N"]:
    column = vertices.columns.get(name)
    if column is None or column.dtype.kind not in "ui" or column.dtype.itemsize != 4:
        raise BadFile(f"{vertices.path}: not a sound compressed PLY; its vertices have no '{name}' of type uint")
    return column.astype(np.uint32)


def _bounds(vertices: Vertices) -> Columns:
    """The columns of the chunks, each checked to be there."""
    bounds = vertices.tables.get("chunk", {})
    names = [f"{end}_{stem}{axis}" for end in ("min", "max") for stem in ("", "scale_") for axis in XYZ]
    names += [f"{end}_{axis}" for end in ("min", "max") for axis in RGB] if "min_r" in bounds else []
    missing = [name for name in names if name not in bounds or bounds[name].dtype.kind == "O"]
    if missing:
        raise BadFile(f"{vertices.path}: not a sound compressed PLY; its chunks lack {', '.join(missing)}")
    count, needed = len(bounds[names[0]]), -(-len(vertices.columns[PACKED[0]]) // CHUNK)
    if count < needed:
        raise BadFile(f"{vertices.path}: not a sound compressed PLY; it has {count} chunks, its vertices need {needed}")
    return bounds


def _shares(words: UInt32[np.ndarray, "N"], lowest: tuple[int, ...], most: tuple[int, ...]) -> Float[np.ndarray, "N C"]:
    """The fields of words that begin at the bits ``lowest``, as shares of their greatest values ``most``."""
    whole = np.array(most, np.uint32)
    return (words[:, None] >> np.array(lowest, np.uint32) & whole) / whole


def _between(
    bounds: Columns, names: tuple[str, ...], shares: Float[np.ndarray, "N 3"], of: np.ndarray
) -> Float[np.ndarray, "N 3"]:
    low, high = (np.stack([bounds[f"{end}_{n}"] for n in names], 1).astype(np.float64)[of] for end in ("min", "max"))
    with np.errstate(invalid="ignore", over="ignore"):
        return low * (1.0 - shares) + high * shares


def _harmonics(vertices: Vertices) -> Float[np.ndarray, "N K 3"]:
    """The coefficients above degree 0; none if there is no table of them."""
    table, count = vertices.tables.get("sh", {}), len(vertices.columns[PACKED[0]])
    names = [f"f_rest_{place}" for place in range(len(table))]
    sound = len(names) in (0, 9, 24, 45) and set(names) == table.keys()
    if not sound or any(table[name].dtype != np.uint8 or len(table[name]) != count for name in names):
        raise BadFile(
            f"{vertices.path}: not a sound compressed PLY; its element 'sh' must hold 9, 24 or 45 properties f_rest_0 "
            f"and on of type uchar, for each of its {count:,} vertices"
        )
    steps = (np.arange(256) + 0.5) / 256.0
    steps[0], steps[-1] = 0.0, 1.0
    values: UInt8[np.ndarray, "N C"] = np.stack([table[n] for n in names], 1) if names else np.zeros((count, 0), "u1")
    return ((2.0 * steps - 1.0) * FARTHEST)[values].reshape(count, 3, -1).transpose(0, 2, 1)


def _real(vertices: Vertices, rows: UInt32[np.ndarray, "N 4"]) -> Bool[np.ndarray, "N"]:
    """Which Gaussians are not filling; all of them, unless the comment counts exactly those that look like filling."""
    counts = [line.removeprefix(FILLING).strip() for line in vertices.comments if line.startswith(FILLING)]
    firsts = rows[np.arange(len(rows)) // CHUNK * CHUNK]
    like = (rows[:, :3] == firsts[:, :3]).all(axis=1) & (rows[:, 3] >> 8 == firsts[:, 3] >> 8) & (rows[:, 3] & 255 == 0)
    like[::CHUNK] = False
    return ~like if counts == [str(like.sum())] else np.ones(len(rows), dtype=bool)
