"""How near a splat's Gaussians lie to the true surface, by the object's signed distance function d.

Splat to truth: the mean of |d(mu_i)| over the Gaussians, weighted with the sum of blending weights that Gaussian i has
in the pixels of the held-out cameras. That is its opacity times the area it is seen with: hidden ones count nothing.
Truth to splat: the mean over points spread evenly on the surface of the distance to the nearest mu_i of opacity above
0.1. It also sees sides that no camera sees, and even a perfect splat of N Gaussians keeps about half of their spacing.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.evaluation.views import held_out
from gsdistill.renderer.base import blending_weights
from gsdistill.shapes.captions import Thing
from gsdistill.shapes.solids import distances
from gsdistill.shapes.surface import sample_surface
from gsdistill.shapes.world import build
from gsdistill.structs import Gaussians

__all__ = ["FARTHEST", "floaters", "splat_to_truth", "surface_points", "truth_to_splat", "visibility"]

FARTHEST = 2.0  # the distance reported where there is nothing to measure: the diameter of the unit ball
_SOLID = 0.1  # opacity from which on a Gaussian stands for surface
_ADRIFT = 0.15


def splat_to_truth(gaussians: Gaussians, shapes: tuple[str, ...]) -> float:
    """Mean distance of what is seen of the splat to the true surface, world units; 2 if nothing is seen."""
    weights = visibility(gaussians)
    if float(weights.sum()) <= 0.0:
        return FARTHEST
    return float((weights * _signed(gaussians, shapes).abs()).sum() / weights.sum())


def truth_to_splat(gaussians: Gaussians, shapes: tuple[str, ...]) -> float:
    """Mean distance of the true surface to the nearest Gaussian of opacity above 0.1, world units; 2 if none has it."""
    solid = gaussians.means[torch.sigmoid(gaussians.opacities) > _SOLID].double()
    if not len(solid):
        return FARTHEST
    lengths = (solid**2).sum(1)
    nearest = [
        ((lengths - 2.0 * some @ solid.T).amin(1) + (some**2).sum(1)).clamp_min(0.0).sqrt()
        for some in surface_points(shapes).split(256)
    ]
    return float(torch.cat(nearest).mean())


def floaters(gaussians: Gaussians, shapes: tuple[str, ...]) -> float:
    """Share, 0..1, of the summed opacity that lies more than 0.15 outside of the surface."""
    opacity = torch.sigmoid(gaussians.opacities.double())
    return float(opacity[_signed(gaussians, shapes) > _ADRIFT].sum() / opacity.sum().clamp_min(1e-30))


def visibility(gaussians: Gaussians) -> Float[Tensor, "N"]:
    """Sum of each Gaussian's blending weights over all pixels of the held-out cameras, in pixels."""
    return blending_weights(gaussians, held_out())


@functools.lru_cache(maxsize=8)
def surface_points(shapes: tuple[str, ...], count: int = 4096, seed: int = 0) -> Float[Tensor, "M 3"]:
    """``count`` points on the true surface, even by area but for a band of a few hundredths along edges."""
    parts = build(tuple(Thing("white", shape) for shape in shapes)).parts
    return torch.from_numpy(sample_surface(parts, count, np.random.default_rng(seed)))


def _signed(gaussians: Gaussians, shapes: tuple[str, ...]) -> Float[Tensor, "N"]:
    parts = build(tuple(Thing("white", shape) for shape in shapes)).parts
    return torch.from_numpy(distances(parts, gaussians.means.double().contiguous().numpy()))
