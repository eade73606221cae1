"""Divide Gaussians into chunks of 256 neighbours, for formats that store one range of values for each chunk.

The Gaussians are halved along the widest axis, again and again, which gives smaller boxes than a space-filling curve.
Those that would widen the ranges of others get their own chunks: first they are grouped in shells around the middle,
each four times as wide as the one inside it, and likewise by colour; then they are separated at wide gaps. Chunks with
fewer than 256 are filled up, except for the smallest, which comes last.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.scene.formats.compressed_ply import CHUNK
from gsdistill.scene.limits import NARROWEST, WIDEST

__all__ = ["chunks", "filled"]

USUAL = 4.0  # the first shell reaches this many median distances (colours: this value); each next one as many times it
FINE = 80.0  # in a box this many median deviations wide, positions are exact to 2 % of a deviation
SIDE = 32  # a gap divides a chunk only if each side of it has at least this many Gaussians


def chunks(gaussians: Gaussians) -> list[Int[np.ndarray, "_"]]:
    """Chunks with the indices of 1 to 256 Gaussians each; every Gaussian is in one, and the smallest chunk is last."""
    means = gaussians.means.double()
    size = gaussians.scales.double().clamp(NARROWEST, WIDEST).exp().amax(dim=1).median()
    away = (means - means.median(dim=0).values).abs().amax(dim=1)
    far = _shell(away, torch.maximum(away.median(), FINE / 2 / USUAL * size))
    bright = _shell(SH_C0 * gaussians.sh[:, 0].double().abs().amax(dim=1), torch.tensor(1.0))
    axes, groups = means.T.contiguous().numpy(), (far * 1000 + bright).numpy()
    chunks: list[Int[np.ndarray, "_"]] = []
    for group in np.unique(groups):
        places = np.flatnonzero(groups == group)
        chunks += _halved(axes[:, places], places, FINE * float(size))
    return sorted(chunks, key=len, reverse=True)


def filled(chunks: list[Int[np.ndarray, "_"]]) -> tuple[Int[np.ndarray, "M"], Bool[np.ndarray, "M"]]:
    """The concatenated chunks, all but the last filled up with their first index, and which entries are filling.

    Both arrays have M entries, M the number of Gaussians with filling.
    """
    sizes = np.array([len(chunk) for chunk in chunks])
    room = np.append(np.full(len(chunks) - 1, CHUNK), sizes[-1])
    order = np.concatenate(
        [np.append(chunk, np.full(count - len(chunk), chunk[0])) for chunk, count in zip(chunks, room, strict=True)]
    )
    return order, np.arange(len(order)) % CHUNK >= np.repeat(sizes, room)


def _shell(away: Float[Tensor, "N"], usual: Float[Tensor, ""]) -> Int64[Tensor, "N"]:
    """The shell of each distance ``away``: 0 up to 4 times ``usual``, 1 up to 16 times, and so on."""
    return (torch.log2(away / (USUAL * usual)) / np.log2(USUAL)).ceil().clamp_min(0.0).long()


def _halved(axes: Float[np.ndarray, "3 M"], places: Int[np.ndarray, "M"], fine: float) -> list[Int[np.ndarray, "_"]]:
    """Halve Gaussians along their widest axis until only chunks are left; gaps count in boxes wider than ``fine``."""
    widths = axes.max(axis=1) - axes.min(axis=1)
    values = axes[widths.argmax()]
    order = np.argsort(values, kind="stable")
    cut = _gap(values[order]) if widths.max() > fine else None
    if cut is None and len(places) <= CHUNK:
        return [np.sort(places)]  # Gaussians at the same place are drawn in the order of the file
    cut = cut or CHUNK * max(1, round(len(places) / CHUNK / 2))
    parts = (order[:cut], order[cut:])
    return [chunk for part in parts for chunk in _halved(axes[:, part], places[part], fine)]


def _gap(values: Float[np.ndarray, "M"]) -> int | None:
    """How many of the ascending ``values`` lie before a gap of more than half their range; None without such a gap.

    At least ``SIDE`` values must lie on either side.
    """
    steps = np.diff(values, append=values[-1])
    before = int(steps.argmax()) + 1
    wide = steps.max() > (values[-1] - values[0]) / 2
    return before if wide and SIDE <= before <= len(values) - SIDE else None
