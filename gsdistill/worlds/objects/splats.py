"""Reference splats: a truth of everyday objects for everybody, of about 900 Gaussians a model in 12 bytes each.

tools/objects/splats.py fits each to the true pictures of its model. They are also what a perfect distillation would
look like. The file has for all models, one behind the other:

    means      12 bits a coordinate, -1..1          scales   8 bits, the logarithm from -8 to 0
    quats      8 bits for x, y, z; w is the largest  colors   8 bits, with the light baked in
    opacities  8 bits                                main     1 bit: whether a colour word repaints it

A Gaussian is the same with its axes in another order, so that w can be the largest of the four without a loss. Where a
word repaints it, its shade is the luminance of its colour over ``level``, the mean luminance of the model's main faces.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from gsdistill.core.errors import BadFile
from gsdistill.core.failing import failing_as
from gsdistill.core.structs import SH_C0, Cameras, Gaussians
from gsdistill.disk.places import data_path
from gsdistill.renderer.base import render
from gsdistill.worlds.base import Buffers
from gsdistill.worlds.objects.meshes import VARIABLE
from gsdistill.worlds.objects.stacking import places

__all__ = ["FILE", "Reference", "colored", "draw", "merge", "reference", "split"]

FILE = data_path("assets", "objects-splats", "splats.npz")
LUMINANCE = torch.tensor([0.3, 0.59, 0.11])
_COORDINATE, _BYTE, _WIDEST = 4095, 255, 8.0
_FINE = 64  # pixels of a side from which a picture is drawn as it is
_LARGEST_W = 0.53  # of x, y and z where w is the largest that the order of the axes allows


@dataclass(frozen=True)
class Reference:
    """The reference splat of a model."""

    gaussians: Gaussians  # degree 0
    main: Tensor  # [N], whether a colour word repaints a Gaussian
    level: float  # the mean luminance of what it repaints
    outline: NDArray[np.float64]  # as stacking.extremes
    support: NDArray[np.float64]  # as stacking.support


def split(one: Reference) -> dict[str, NDArray[Any]]:
    """A reference splat as the file holds it."""
    g = one.gaussians
    quats, order = _upright(g.quats)
    scales = torch.gather(g.scales, 1, order)
    colors = 0.5 + SH_C0 * g.sh[:, 0]
    near = np.argsort(_morton(g.means.numpy()), kind="stable")  # neighbours compress well
    return {
        "means": _whole((g.means + 1) / 2, _COORDINATE).astype(np.uint16)[near],
        "quats": _whole(quats[:, 1:] / _LARGEST_W / 2 + 0.5, _BYTE).astype(np.uint8)[near],
        "scales": _whole(scales / _WIDEST + 1, _BYTE).astype(np.uint8)[near],
        "opacities": _whole(torch.sigmoid(g.opacities), _BYTE).astype(np.uint8)[near],
        "colors": _whole(colors, _BYTE).astype(np.uint8)[near],
        "main": one.main.numpy()[near],
        "level": np.array([one.level], np.float32),
        "outline": one.outline.astype(np.float32),
        "support": one.support.astype(np.float32),
    }


def merge(parts: Mapping[str, NDArray[Any]]) -> Reference:
    """The reference splat of what :func:`split` made."""
    whole = {name: torch.from_numpy(values.astype(np.float32)) for name, values in parts.items()}
    xyz = (whole["quats"] / _BYTE - 0.5) * 2 * _LARGEST_W
    w = (1 - xyz.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
    opacity = (whole["opacities"] / _BYTE).clamp(0.002, 0.998)
    gaussians = Gaussians(
        means=2 * whole["means"] / _COORDINATE - 1,
        quats=torch.cat([w, xyz], 1),
        scales=_WIDEST * (whole["scales"] / _BYTE - 1),
        opacities=torch.logit(opacity),
        sh=((whole["colors"] / _BYTE - 0.5) / SH_C0)[:, None],
    )
    outline, support = (np.asarray(parts[name], np.float64) for name in ("outline", "support"))
    return Reference(gaussians, whole["main"] > 0, float(parts["level"][0]), outline, support)


@functools.lru_cache(maxsize=256)
def reference(name: str, path: Path = FILE) -> Reference:
    """The reference splat of a model.

    Raises:
        BadFile: the file is missing or damaged, or has no such model.
    """
    advice = f"; where there are none, {VARIABLE} names the meshes, see gsdistill/worlds/README.md"
    with failing_as(BadFile, f"{path}: the reference splats cannot be read", advice):
        library = _library(path)
        place = list(library["names"]).index(name)
        rows = slice(*library["starts"][place : place + 2])
        each = {"level": library["level"][place : place + 1]}
        each |= {key: library[key][place] for key in ("outline", "support")}
        every = {key: library[key][rows] for key in ("means", "quats", "scales", "opacities", "colors", "main")}
        return merge({**every, **each})


def draw(parts: Sequence[Reference], painted: Sequence[bool], cameras: Cameras) -> Buffers:
    """Draw one reference splat, or two of which the upper one is first, as ``stacking.places`` puts them."""
    every, shade, own, fixed = _stand(parts, painted)
    body, alpha = _drawn(every, fixed, cameras)
    coverage = _drawn(every, own, cameras)[0][:, : len(parts)] if len(parts) > 1 else alpha
    shades = _drawn(every, shade, cameras)[0][:, : len(parts)] if any(painted) else torch.zeros_like(coverage)
    return Buffers(shades * torch.tensor(painted)[:, None, None], coverage, body)  # exactly zero where no word is


def colored(parts: Sequence[Reference], painted: Sequence[bool], colors: Tensor) -> Gaussians:
    """The same as one splat, what is painted in RGB colors [P, 3]."""
    every, shade, _, fixed = _stand(parts, painted)
    return _in_colors(every, fixed + shade[:, : len(parts)] @ colors)


def _stand(parts: Sequence[Reference], painted: Sequence[bool]) -> tuple[Gaussians, Tensor, Tensor, Tensor]:
    """All Gaussians where they stand; and [N, 3] each: their shades by part, which part they are of, fixed colours."""
    spots = places([part.outline for part in parts], parts[1].support if len(parts) > 1 else None)
    gaussians = [part.gaussians for part in parts]
    offsets = [torch.from_numpy(spot.offset).float() for spot in spots]
    every = Gaussians(
        means=torch.cat([s.scale * g.means + offset for s, g, offset in zip(spots, gaussians, offsets, strict=True)]),
        quats=torch.cat([g.quats for g in gaussians]),
        scales=torch.cat([g.scales + np.log(s.scale) for s, g in zip(spots, gaussians, strict=True)]),
        opacities=torch.cat([g.opacities for g in gaussians]),
        sh=torch.cat([g.sh for g in gaussians]),
    )
    colors = 0.5 + SH_C0 * every.sh[:, 0]
    paint = torch.cat([part.main & word for part, word in zip(parts, painted, strict=True)])[:, None]
    level = torch.cat([torch.full((len(part.main),), part.level) for part in parts])
    own = torch.eye(3)[torch.cat([torch.full((len(g),), number) for number, g in enumerate(gaussians)])]
    # as meshes.py has it, times the light; the nearly black tells its shade badly, so the least is that of a shadow
    shade = own * paint * ((colors @ LUMINANCE) / level).clamp(0.4, 1.4)[:, None]
    return every, shade, own, colors * ~paint


def _drawn(gaussians: Gaussians, colors: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Pictures [B, 3, H, W] of Gaussians in these colours over black, and alphas [B, 1, H, W].

    Small ones are the means of larger ones: the low-pass filter of splats, a third of a pixel, would swell what they
    show, and of 40 perfect splats 14 would get a wrong name.
    """
    times = max(1, _FINE // max(cameras.width, cameras.height))
    wider = torch.tensor([times, times, 1.0])[:, None]
    fine = replace(cameras, Ks=wider * cameras.Ks, width=times * cameras.width, height=times * cameras.height)
    with torch.no_grad():
        seen = render(_in_colors(gaussians, colors), fine, torch.zeros(len(cameras), 3))
    image, alpha = (avg_pool2d(plane.movedim(-1, 1), times).contiguous() for plane in (seen.images, seen.alphas))
    return image, alpha


def _in_colors(gaussians: Gaussians, colors: Tensor) -> Gaussians:
    return replace(gaussians, sh=((colors - 0.5) / SH_C0)[:, None])


@functools.lru_cache(maxsize=2)
def _library(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path) as arrays:
        return dict(arrays)


def _whole(values: Tensor, most: int) -> NDArray[np.int64]:
    return (values.double() * most).round().clamp(0, most).long().numpy()


def _morton(points: NDArray[np.float32]) -> NDArray[np.int64]:
    """Places of points on a curve that fills space."""
    cells = np.clip((points + 1) * 512, 0, 1023).astype(np.int64)
    bits = [((cells[:, axis] >> bit) & 1) << (3 * bit + axis) for axis in range(3) for bit in range(10)]
    return np.stack(bits).sum(0)


def _upright(quats: Tensor) -> tuple[Tensor, Tensor]:
    """Quaternions [N, 4] of the same Gaussians with the largest w, positive, and the axes' order [N, 3] for scales."""
    quats = torch.nn.functional.normalize(quats.double(), dim=1)
    turns, orders = _turns()
    products = torch.stack([_product(quats, turn.expand_as(quats)) for turn in turns], 1)
    best = products[..., 0].abs().argmax(1)
    chosen = products[torch.arange(len(quats)), best]
    return (chosen * chosen[:, :1].sign()).float(), orders[best]


@functools.cache
def _turns() -> tuple[Tensor, Tensor]:
    """The 24 turns of a cube as quaternions [24, 4], and which of the old axes each new one is [24, 3]."""
    from scipy.spatial.transform import Rotation

    turns, orders = [], []
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        matrix = np.zeros((3, 3))
        matrix[list(order), range(3)] = signs
        if np.linalg.det(matrix) > 0:
            x, y, z, w = Rotation.from_matrix(matrix).as_quat()
            turns.append((w, x, y, z))
            orders.append(order)
    return torch.tensor(turns, dtype=torch.float64), torch.tensor(orders)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """The quaternion product, w first."""
    w, v, x, y = a[:, :1], b[:, :1], a[:, 1:], b[:, 1:]
    return torch.cat([w * v - (x * y).sum(1, keepdim=True), w * y + v * x + torch.linalg.cross(x, y)], 1)
