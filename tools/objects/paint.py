"""One sRGB colour for each triangle of a model, after its materials and pictures.

glTF's colours are linear: they become sRGB. The licence allows changes, and some are wanted: ``raw`` is the share of
the file's own numbers, taken as sRGB, in a colour, for tomatoes that shall not be pink; ``gain`` multiplies linear
colours; ``lift`` brightens a dark model; glass shows what is behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from load import Part
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import KDTree
from table import Source

__all__ = ["areas", "lifted", "linear", "paint", "sampled", "srgb"]

GREY = 0.8  # of a part that has no colour
BUDGET = 5500  # triangles of a model after its pictures have split them
UNSEEN, GLASS = 0.08, 0.7  # a part with less alpha is left out; shows what is behind it
OPAQUE = 0.43  # a triangle of a picture with less alpha is left out
VARIES = 25 / 255  # the deviation of a triangle's colours from which on it is split
SMALL = 4e-4  # share of the model's surface below which it is not
ROUNDS = 5
BRIGHT, MOST = 0.62, 2.2  # what a dark model is lifted to, and the most that its linear colours are multiplied with
TEXELS = 512  # a larger picture is made smaller, for a few samples of it are noise
# Where a triangle's picture is sampled: ten points.
_SAMPLES = np.array(
    [[1 / 3, 1 / 3, 1 / 3]]
    + [[*np.roll([high, low, low], turn)] for high, low in ((0.6, 0.2), (0.8, 0.1), (0.1, 0.45)) for turn in range(3)]
)


def srgb(colors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear colours as sRGB; both in 0..1, to which they are clipped."""
    colors = np.clip(colors, 0, 1)
    return np.where(colors <= 0.0031308, 12.92 * colors, 1.055 * colors ** (1 / 2.4) - 0.055)


def linear(colors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of :func:`srgb`."""
    return np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def areas(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """The areas [F] of triangles [F, 3, 3]."""
    return np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2


def paint(parts: Sequence[Part], source: Source) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The triangles [F, 3, 3] of a model and their colours [F, 3], sRGB in 0..1."""
    parts = [part for part in parts if part.alpha >= UNSEEN]
    surface, count = sum(float(areas(part.corners).sum()) for part in parts), sum(len(part.corners) for part in parts)
    corners, colors = [], []
    for part in parts:
        color = _plain(part, source)
        if part.uv is not None and part.picture is not None:
            budget = max(BUDGET - count + len(part.corners), len(part.corners))
            shown, sampled_colors = sampled(part.corners, part.uv, part.picture, surface, budget)
            corners.append(shown)
            colors.append(sampled_colors * color)
        else:
            corners.append(part.corners)
            colors.append(np.broadcast_to(color, (len(part.corners), 3)).copy())
    if source.liquid:
        _show_liquid(parts, corners, colors, _rgb(source.liquid))
    alpha = np.repeat([part.alpha for part in parts], [len(own) for own in corners])
    found, shades = np.concatenate(corners), np.concatenate(colors)
    if not source.liquid and (alpha < GLASS).any() and not (alpha < GLASS).all():
        _show_through(found, shades, alpha)
    return found, np.clip(lifted(shades, areas(found)) if source.lift else shades, 0, 1)


def _plain(part: Part, source: Source) -> NDArray[np.float64]:
    if part.material in source.materials:
        return _rgb(source.materials[part.material])
    if part.color is None:
        return np.full(3, GREY if part.picture is None else 1.0)
    return source.raw * part.color + (1 - source.raw) * srgb(source.gain * part.color)


def _rgb(text: str) -> NDArray[np.float64]:
    return np.array([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def sampled(
    corners: NDArray[np.float64], uv: NDArray[np.float64], picture: Image.Image, surface: float, budget: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Triangles and their colours from a picture; those on which it varies are split in four, again and again.

    Args:
        corners: [F, 3, 3].
        uv: [F, 3, 2], v upwards; the picture repeats.
        picture: any size and mode.
        surface: the area of the whole model, in units of ``corners``.
        budget: how many triangles there may be in the end.
    """
    picture = picture.convert("RGBA")
    if (longest := max(picture.size)) > TEXELS:
        width, height = (max(1, side * TEXELS // longest) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BOX)
    texels = np.asarray(picture, np.float64) / 255
    height, width = texels.shape[:2]
    uv = np.nan_to_num(uv)
    shown, colors, count = [], [], 0
    for round_ in range(ROUNDS + 1):
        u, v = np.moveaxis(np.mod(np.einsum("sk,fkd->fsd", _SAMPLES, uv), 1), -1, 0)
        columns, rows = (
            np.minimum((u * width).astype(int), width - 1),
            np.minimum(((1 - v) * height).astype(int), height - 1),
        )
        samples = texels[rows, columns]
        spread = np.sqrt(samples[..., :3].var(1).sum(1)) + samples[..., 3].std(1) / 2
        area = areas(corners)
        split = (spread > VARIES) & (area > SMALL * surface) & (round_ < ROUNDS)
        room = max((budget - count - len(corners)) // 3, 0)
        split[np.argsort(-area * spread * split, kind="stable")[room:]] = False
        kept = ~split & (samples[..., 3].mean(1) > OPAQUE)
        weights = samples[kept][..., 3:] + 1e-5
        shown.append(corners[kept])
        colors.append((samples[kept][..., :3] * weights).sum(1) / weights.sum(1))
        count += int(kept.sum())
        if not split.any():
            break
        corners, uv = _quarters(corners[split]), _quarters(uv[split])
    return np.concatenate(shown), np.concatenate(colors)


def _quarters(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
    return np.concatenate([np.stack(three, 1) for three in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])


def lifted(colors: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """SRGB colours [F, 3], multiplied in linear light so that the brightest tenth of the surface is bright."""
    strongest = colors.max(1)
    order = np.argsort(strongest)
    share = np.cumsum(weights[order]) / weights.sum()
    bright = strongest[order[min(np.searchsorted(share, 0.9), len(order) - 1)]]
    if bright >= BRIGHT:
        return colors
    return srgb(linear(colors) * min(MOST, linear(np.array(BRIGHT)) / max(linear(np.array(bright)), 1e-3)))


def _show_through(corners: NDArray[np.float64], colors: NDArray[np.float64], alpha: NDArray[np.float64]) -> None:
    """Mix into glass the colour of the nearest triangle of another kind."""
    glass = alpha < GLASS
    centres, others = corners.mean(1), np.flatnonzero(~glass)
    points = [centres[others], *(0.8 * corners[others, i] + 0.2 * centres[others] for i in range(3))]
    _, nearest = KDTree(np.concatenate(points)).query(centres[glass])
    share = np.clip(alpha[glass], 0.15, 0.5)[:, None]
    colors[glass] = share * colors[glass] + (1 - share) * colors[others[nearest % len(others)]]


def _show_liquid(
    parts: Sequence[Part],
    corners: Sequence[NDArray[np.float64]],
    colors: Sequence[NDArray[np.float64]],
    liquid: NDArray[np.float64],
) -> None:
    """Give a potion's liquid its colour, and its glass up to there nearly the same."""
    filled = next(own[..., 1].max() for part, own in zip(parts, corners, strict=True) if part.material[:6] == "Liquid")
    for part, own, color in zip(parts, corners, colors, strict=True):
        if part.material.startswith("Liquid"):
            color[:] = liquid
        elif part.material.startswith("Glass"):
            color[:] = _rgb("#d4e2e8")
            color[own[..., 1].mean(1) < filled] = 0.78 * liquid + 0.22 * _rgb("#e1ebf0")
