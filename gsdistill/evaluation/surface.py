"""Distances between a splat and the true surface: of the surface that is seen, and of the Gaussians' centres.

Surface: every pixel of the held-out and the unseen cameras with alpha > 1/2 is a point of the splat's surface, at the
pixel's mean depth by blending weights. From the splat to the truth: the mean distance of these points to the true
surface. Back: the mean distance of points on the true surface to the nearest of them. Since cameras look from below
too, an underside that is missing or wrong costs. The mean depth of a soft splat lies behind its surface, and at
outlines and holes it lies between near and far. So good runs on the shapes prior keep 0.02 to 0.06, thin objects the
least, and small dense Gaussians on the true surface 0.01 to 0.03.

Centres: those of a trained splat lie below its surface, often by 0.1, and hardly move where its looks are ruined. From
the splat to the truth: the mean of |d(mu_i)|, weighted by the sum of the blending weights that Gaussian i has in the
pixels of the held-out cameras. This is its opacity times its visible area, so hidden Gaussians count nothing. Back: the
mean distance of points on the true surface to the nearest mu_i of opacity above 0.1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.structs import Gaussians
from gsdistill.evaluation.references import Surface, nearest_of, seen_points
from gsdistill.evaluation.views import Pictures, held_out
from gsdistill.renderer.base import blending_weights

__all__ = ["FARTHEST", "centres", "floaters", "splat_to_truth", "surface", "truth_to_splat", "visibility"]

FARTHEST = 2.0  # the distance reported where there is nothing to measure: the diameter of the unit ball
_SOLID = 0.1  # opacity above which a Gaussian counts as part of a surface
_ADRIFT = 0.15  # distance above which a Gaussian is a floater, world units
MOST = 20_000  # points whose distances are measured, at most


def surface(seen: Pictures, unseen: Pictures, truth: Surface) -> dict[str, float]:
    """Distances between the splat's surface and the true one, world units; 2 if nothing of the splat is seen.

    ``seen`` are pictures from the held-out cameras with depth, ``unseen`` from the unseen ones.
    """
    points = seen_points(seen, unseen)
    forth = float(truth.distance(_some(points)).abs().mean()) if len(points) else FARTHEST
    back = _mean_to(points, truth)
    return {"surface_chamfer": 0.5 * (forth + back), "surface_to_truth": forth, "truth_to_surface": back}


def centres(gaussians: Gaussians, truth: Surface) -> dict[str, float]:
    """Distances between the Gaussians' centres and the true surface, world units."""
    forth, back = splat_to_truth(gaussians, truth), truth_to_splat(gaussians, truth)
    return {"centre_chamfer": 0.5 * (forth + back), "splat_to_truth": forth, "truth_to_splat": back}


def splat_to_truth(gaussians: Gaussians, truth: Surface) -> float:
    """Mean distance of visible Gaussians' centres to the true surface, world units; 2 if nothing is seen."""
    weights = visibility(gaussians)
    if float(weights.sum()) <= 0.0:
        return FARTHEST
    return float((weights * truth.distance(gaussians.means).abs()).sum() / weights.sum())


def truth_to_splat(gaussians: Gaussians, truth: Surface) -> float:
    """Mean distance of the true surface to the nearest centre of opacity above 0.1, world units; 2 without one."""
    return _mean_to(gaussians.means[torch.sigmoid(gaussians.opacities) > _SOLID], truth)


def floaters(gaussians: Gaussians, truth: Surface) -> float:
    """Share, 0..1, of the summed opacity of Gaussians whose centres lie more than 0.15 outside of a signed truth."""
    opacity = torch.sigmoid(gaussians.opacities.double())
    return float(opacity[truth.distance(gaussians.means) > _ADRIFT].sum() / opacity.sum().clamp_min(1e-30))


def visibility(gaussians: Gaussians) -> Float[Tensor, "N"]:
    """Sum of each Gaussian's blending weights over all pixels of the held-out cameras, in pixels."""
    return blending_weights(gaussians, held_out())


def _mean_to(points: Float[Tensor, "N 3"], truth: Surface) -> float:
    """Mean distance of the true surface to the nearest of the points; 2 if there are none."""
    return float(nearest_of(points, _some(truth.points)).mean()) if len(points) else FARTHEST


def _some(points: Float[Tensor, "N 3"]) -> Float[Tensor, "M 3"]:
    """At most MOST of the points, evenly from all views: enough for a mean to three digits."""
    return points[:: -(-len(points) // MOST)]
