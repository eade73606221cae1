"""Reading .splat: 32 bytes per Gaussian and no header, so that only the name of a file shows its format.

means          3 float32
deviations     3 float32, standard deviations
colours        4 bytes, red green blue opacity
quats          4 bytes, 128 + 128 times w x y z

Little endian; no view-dependent colour. A deviation of 0 is that of a disc; one below 0 is invalid and becomes NaN.
Source: K. Kwok, github.com/antimatter15/splat, convert.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gsdistill.core.errors import BadFile
from gsdistill.core.structs import SH_C0
from gsdistill.scene.content import Content, from_arrays

__all__ = ["ROW", "read"]

ROW = np.dtype([("means", "<f4", 3), ("deviations", "<f4", 3), ("colours", "u1", 4), ("quats", "u1", 4)])


def read(data: bytes, path: Path) -> Content:
    """Return the splat of a file.

    Raises:
        BadFile: it is empty, or its size is no multiple of 32 bytes.
    """
    if not data or len(data) % ROW.itemsize:
        raise BadFile(f"{path}: not a sound .splat file: {len(data):,} bytes, no multiple of {ROW.itemsize}")
    rows = np.frombuffer(data, ROW)
    colours, quats = rows["colours"] / 255.0, (rows["quats"] - 128.0) / 128.0
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = np.log(rows["deviations"].astype(np.float64))
    sh = ((colours[:, :3] - 0.5) / SH_C0)[:, None]
    return Content(path, from_arrays(rows["means"], quats, scales, colours[:, 3], sh), None, "rdf")
