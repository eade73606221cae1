"""Changes of a whole splat: which Gaussians to keep, where the splat stands, and which colours it has.

A mask over the Gaussians chooses what is kept. A crop looks at centres alone, so a Gaussian that stays may reach out.

Size: means times s, and log s added to the logarithms of the deviations. Turning: :func:`gsdistill.scene.turn.turned`.

Colour: a Gaussian has the colour f(d) = 1/2 + sum_k c_k Y_k(d) towards d. A matrix A makes it A f(d) for every d by
c'_0 = A c_0 + (A - I) 1/2 / Y_0 and c'_k = A c_k for all higher k, so that view-dependent colour stays consistent. The
matrices are those of the standard filters, on colours as they are shown (not on linear light): saturation s is
s I + (1 - s) 1 w^T with the luma weights w of Rec. 709, hue is the rotation about the grey axis, which takes red to
green at 120 degrees, brightness is a factor, and a tint a factor of each channel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from gsdistill.core.errors import tell
from gsdistill.core.structs import SH_C0, Gaussians

__all__ = [
    "about_axis", "colour_matrix", "in_ball", "in_box", "join", "large_parts", "most_important", "moved", "picked",
    "recoloured", "scaled",
]  # fmt: skip

Triple = tuple[float, float, float]

LUMA = (0.2126, 0.7152, 0.0722)  # Rec. 709


def join(splats: Sequence[Gaussians]) -> Gaussians:
    """Return all Gaussians of the splats, one after the other, with harmonics of the highest degree among them.

    All get the render options of the first splat; a Notice says which other options are lost.
    """
    for other in splats[1:]:
        if other.options != splats[0].options:
            tell(f"a splat made to be drawn with {other.options} is drawn like the first, with {splats[0].options}")
    most = max(splat.sh.shape[1] for splat in splats)
    padded = [replace(g, sh=torch.nn.functional.pad(g.sh, (0, 0, 0, most - g.sh.shape[1]))) for g in splats]
    first = padded[0]
    return replace(first, **{name: torch.cat([getattr(g, name) for g in padded]) for name in first.tensors()})


def picked(gaussians: Gaussians, which: Bool[Tensor, "N"] | Int[Tensor, "M"]) -> Gaussians:
    """The Gaussians that a mask or indices choose."""
    return gaussians.each(lambda value: value[which])


def in_box(gaussians: Gaussians, low: Triple, high: Triple) -> Bool[Tensor, "N"]:
    """Which Gaussians have their centre in the axis-aligned box between two corners, faces included."""
    means = gaussians.means.double()
    return ((means >= means.new_tensor(low)) & (means <= means.new_tensor(high))).all(dim=1)


def in_ball(gaussians: Gaussians, centre: Triple, radius: float) -> Bool[Tensor, "N"]:
    """Which Gaussians have their centre at most ``radius`` from ``centre``."""
    means = gaussians.means.double()
    return (means - means.new_tensor(centre)).norm(dim=1) <= radius


def large_parts(gaussians: Gaussians, labels: Int[Tensor, "N"], most: int, share: float = 0.0) -> Bool[Tensor, "N"]:
    """Which Gaussians belong to the ``most`` largest parts that have at least ``share`` (0..1) of the summed opacity.

    ``labels`` are those of :func:`gsdistill.scene.parts.parts`, which numbers the parts by that sum, the largest first.
    """
    opacities = gaussians.opacities.double().sigmoid()
    sums = torch.bincount(labels, opacities)
    return (labels < most) & (sums >= share * opacities.sum())[labels]


def most_important(importance: Shaped[Tensor, "N"], count: int) -> Bool[Tensor, "N"]:
    """Which ``count`` Gaussians are the most important; the first ones among equals."""
    keep = torch.zeros(len(importance), dtype=torch.bool, device=importance.device)
    keep[importance.argsort(descending=True, stable=True)[:count]] = True
    return keep


def scaled(gaussians: Gaussians, factor: float) -> Gaussians:
    """The splat ``factor`` times as large, about the origin."""
    g = gaussians
    return replace(g, means=g.means * factor, scales=g.scales + math.log(factor), options=g.options.elsewhere())


def moved(gaussians: Gaussians, step: Triple) -> Gaussians:
    """The splat moved by ``step`` in world units."""
    means = gaussians.means
    there = (means.double() + means.new_tensor(step).double()).to(means)
    return replace(gaussians, means=there, options=gaussians.options.elsewhere())


def about_axis(axis: Triple, degrees: float) -> Float[Tensor, "3 3"]:
    """The rotation about ``axis``, of any length but zero, counter-clockwise seen from its tip, float64."""
    from scipy.spatial.transform import Rotation

    largest = max(abs(component) for component in axis)
    along = np.array(axis) / largest  # so that its square neither underflows nor overflows
    return torch.from_numpy(Rotation.from_rotvec(math.radians(degrees) * along / np.linalg.norm(along)).as_matrix())


def colour_matrix(
    hue: float = 0.0, saturation: float = 1.0, brightness: float = 1.0, tint: Triple = (1.0, 1.0, 1.0)
) -> Float[Tensor, "3 3"]:
    """A of the module's docstring, float64: ``hue`` (degrees), saturation, brightness and tint, in this order."""
    identity = torch.eye(3, dtype=torch.float64)
    grey = torch.tensor(LUMA, dtype=torch.float64).expand(3, 3)
    return (
        torch.diag(brightness * torch.tensor(tint, dtype=torch.float64))
        @ torch.lerp(grey, identity, saturation)
        @ about_axis((1.0, 1.0, 1.0), hue)
    )


def recoloured(gaussians: Gaussians, matrix: Float[Tensor, "3 3"]) -> Gaussians:
    """The splat with A f(d) in place of each colour f(d); values outside of 0..1 are kept, only pictures clip them."""
    a = matrix.double().to(gaussians.sh.device)
    sh = gaussians.sh.double() @ a.T
    sh[:, 0] += (a.sum(dim=1) - 1.0) * 0.5 / SH_C0
    return replace(gaussians, sh=sh.to(gaussians.sh))
