"""Columns of a PLY file's vertices as one table, and plain colours among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import BadFile, tell

__all__ = ["RGB", "Columns", "scale_colors", "stacked"]

Columns: TypeAlias = Mapping[str, np.ndarray]

RGB = ("red", "green", "blue")
TOPS = (1.0, 255.0, 65535.0)  # what programs write for full brightness, whatever the type


def stacked(columns: Columns, names: Sequence[str], path: Path | str, finite: bool = True) -> Float[Tensor, "N P"]:
    """Return the named columns side by side in float32; ``path`` is named in errors.

    Raises:
        BadFile: a column is missing, or ``finite`` is set and one holds NaN or infinity.
    """
    missing = [name for name in names if name not in columns]
    if missing:
        raise BadFile(f"{path}: lacks the vertex properties {', '.join(missing)}")
    with np.errstate(over="ignore"):
        table = np.stack([columns[name].astype(np.float32) for name in names], axis=1)
    wrong = (~np.isfinite(table)).sum(axis=0)
    if finite and wrong.any():
        listed = ", ".join(f"{name} ({count})" for name, count in zip(names, wrong, strict=True) if count)
        raise BadFile(f"{path}: values that are NaN or infinite among its {len(table)} vertices: {listed}")
    return torch.from_numpy(table)


def scale_colors(columns: Columns, names: Sequence[str], path: Path | str) -> Float[Tensor, "N 3"]:
    """Return colours in 0..1: integers are divided by the largest of their type, floats are taken as they are.

    Where the values contradict the type, they are divided by the least of ``TOPS`` that none exceeds, and a Notice says
    so: wider integers that fit into fewer bytes, floats above 2, and floats above 1 that are all whole.

    Raises:
        BadFile: a colour is below 0, too large or not finite, or a column is missing.
    """
    colors, kind = stacked(columns, names, path), columns[names[0]].dtype
    whole, most = bool((colors == colors.round()).all()), float(colors.max())
    top = float(np.iinfo(kind).max) if np.issubdtype(kind, np.integer) else 1.0
    scale = next((usual for usual in TOPS if most <= usual), top)
    if most > 1 and (scale < top or (scale > top == 1.0 and (whole or most > 2))):
        tell(f"{path}: its colours {' '.join(names)} go up to {most:g} and are divided by {scale:g}")
        top = scale
    if float(colors.min()) < 0 or most > top:
        raise BadFile(
            f"{path}: colours {' '.join(names)} of type {kind} must lie in 0..1, 0..255 or 0..65535; they go from "
            f"{float(colors.min()):g} to {most:g}"
        )
    return colors / top
