"""Columns of a PLY file's vertices side by side, and the plain colours among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import BadFile, tell

__all__ = ["RGB", "Columns", "scaled", "stacked"]

Columns: TypeAlias = Mapping[str, np.ndarray]

RGB = ("red", "green", "blue")
TOPS = (1.0, 255.0, 65535.0)  # to which programs let colours go, whatever their type


def stacked(columns: Columns, names: Sequence[str], path: Path | str, finite: bool = True) -> Float[Tensor, "N P"]:
    """Return the named columns side by side in float32.

    Raises:
        BadFile: one is missing, or, where all must be ``finite``, holds NaN or infinity.
    """
    missing = [name for name in names if name not in columns]
    if missing:
        raise BadFile(f"{path}: lacks the vertex properties {', '.join(missing)}")
    with np.errstate(over="ignore"):
        table = np.stack([columns[name].astype(np.float32) for name in names], axis=1)
    wrong = {name: int(bad) for name, bad in zip(names, (~np.isfinite(table)).sum(axis=0), strict=True) if bad}
    if wrong and finite:
        listed = ", ".join(f"{name} ({bad})" for name, bad in wrong.items())
        raise BadFile(f"{path}: values that are NaN or infinite among its {len(table)} vertices: {listed}")
    return torch.from_numpy(table)


def scaled(columns: Columns, names: Sequence[str], path: Path | str) -> Float[Tensor, "N 3"]:
    """Return colours in 0..1: whole numbers divided by the largest of their type, others by 1, or what they go up to.

    Numbers of more than a byte that stay below 256 are bytes all the same, and so are fractions above 2. A Notice tells
    by what is divided where that is not the custom.

    Raises:
        BadFile: colours below 0, or beyond what any program lets them go to, or not finite.
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
