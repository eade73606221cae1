"""Gaussians in chunks of 256 that lie close by, for formats whose chunks share their bounds.

Halves of halves along the widest axis are smaller boxes than stretches of a space-filling curve. What would stretch the
boxes of all others gets chunks of its own: shells around the middle, each reaching four times as far as the one within,
the same for colours, and sides of a gap. A chunk that is left with fewer is filled up, the emptiest one comes last.
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

USUAL = 4.0  # times the median distance from the middle, or 1 of a colour; each shell reaches as many times farther
FINE = 80.0  # median deviations; the positions in a box this wide are right to 2 % of one
SIDE = 32  # Gaussians on either side of a gap that are worth filling up a chunk


def chunks(gaussians: Gaussians) -> list[Int[np.ndarray, "_"]]:
    """Return the places of 1 to 256 Gaussians each, every Gaussian once, the smallest chunk last."""
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
    """Return the chunks behind each other, all but the last filled up with their first, and which ones are filling."""
    sizes = np.array([len(chunk) for chunk in chunks])
    room = np.append(np.full(len(chunks) - 1, CHUNK), sizes[-1])
    order = np.concatenate(
        [np.append(chunk, np.full(count - len(chunk), chunk[0])) for chunk, count in zip(chunks, room, strict=True)]
    )
    return order, np.arange(len(order)) % CHUNK >= np.repeat(sizes, room)


def _shell(away: Float[Tensor, "N"], usual: Float[Tensor, ""]) -> Int64[Tensor, "N"]:
    """0 up to four times the usual distance, 1 up to sixteen times, and so on."""
    return (torch.log2(away / (USUAL * usual)) / np.log2(USUAL)).ceil().clamp_min(0.0).long()


def _halved(axes: Float[np.ndarray, "3 M"], places: Int[np.ndarray, "M"], fine: float) -> list[Int[np.ndarray, "_"]]:
    """Part Gaussians along their widest axis until chunks are left; boxes up to ``fine`` wide have no gap."""
    widths = axes.max(axis=1) - axes.min(axis=1)
    values = axes[widths.argmax()]
    order = np.argsort(values, kind="stable")
    cut = _gap(values[order]) if widths.max() > fine else None
    if cut is None and len(places) <= CHUNK:
        return [np.sort(places)]  # what lies in one place is drawn in the order of the file
    cut = cut or CHUNK * max(1, round(len(places) / CHUNK / 2))
    parts = (order[:cut], order[cut:])
    return [chunk for part in parts for chunk in _halved(axes[:, part], places[part], fine)]


def _gap(values: Float[np.ndarray, "M"]) -> int | None:
    """How many of ascending numbers lie before a gap that is wider than all the rest, if enough lie on either side."""
    steps = np.diff(values, append=values[-1])
    before = int(steps.argmax()) + 1
    wide = steps.max() > (values[-1] - values[0]) / 2
    return before if wide and SIDE <= before <= len(values) - SIDE else None
