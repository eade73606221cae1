"""How near a splat lies to the true surface: what is seen of it, and the centres of its Gaussians.

Surface: every pixel of the held-out and of the unseen cameras with alpha > 1/2 is a point, at the mean depth of what it
shows (by blending weights, as the renderer has it). From the splat to the truth: the mean of the points' distances;
back: the mean over points of the true surface of the distance to the nearest of the splat's. Since cameras look from
below too, an underside that is missing or wrong costs. The mean depth of a soft splat lies behind its surface, and at
outlines and holes between what is near and what is far: runs on the shapes prior that end well keep 0.02 to 0.06, thin
objects the least, and small dense Gaussians on the true surface 0.01 to 0.03.

Centres: a trained splat's lie below its surface, by 0.1 in many, and hardly move where what is seen is ruined. From the
splat to the truth: the mean of |d(mu_i)|, weighted with the sum of blending weights that Gaussian i has in the pixels
of the held-out cameras. That is its opacity times the area it is seen with: hidden ones count nothing. Back: the mean
over points of the surface of the distance to the nearest mu_i of opacity above 0.1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.structs import Gaussians
from gsdistill.evaluation.references import Truth, nearest_of, seen_points
from gsdistill.evaluation.views import Pictures, held_out
from gsdistill.renderer.base import blending_weights

__all__ = ["FARTHEST", "centres", "floaters", "splat_to_truth", "surface", "truth_to_splat", "visibility"]

FARTHEST = 2.0  # the distance reported where there is nothing to measure: the diameter of the unit ball
_SOLID = 0.1  # opacity from which on a Gaussian stands for surface
_ADRIFT = 0.15
MOST = 20_000  # points that distances are taken of


def surface(seen: Pictures, unseen: Pictures, truth: Truth) -> dict[str, float]:
    """Distances between what is seen of the splat and the true surface, world units; 2 if nothing is seen."""
    points = seen_points(seen, unseen)
    forth = float(truth.distance(_some(points)).abs().mean()) if len(points) else FARTHEST
    back = _mean_to(points, truth)
    return {"surface_chamfer": 0.5 * (forth + back), "surface_to_truth": forth, "truth_to_surface": back}


def centres(gaussians: Gaussians, truth: Truth) -> dict[str, float]:
    """Distances between the Gaussians' centres and the true surface, world units."""
    forth, back = splat_to_truth(gaussians, truth), truth_to_splat(gaussians, truth)
    return {"centre_chamfer": 0.5 * (forth + back), "splat_to_truth": forth, "truth_to_splat": back}


def splat_to_truth(gaussians: Gaussians, truth: Truth) -> float:
    """Mean distance of the centres of what is seen to the true surface, world units; 2 if nothing is seen."""
    weights = visibility(gaussians)
    if float(weights.sum()) <= 0.0:
        return FARTHEST
    return float((weights * truth.distance(gaussians.means).abs()).sum() / weights.sum())


def truth_to_splat(gaussians: Gaussians, truth: Truth) -> float:
    """Mean distance of the true surface to the nearest centre of opacity above 0.1, world units; 2 if none has it."""
    return _mean_to(gaussians.means[torch.sigmoid(gaussians.opacities) > _SOLID], truth)


def floaters(gaussians: Gaussians, truth: Truth) -> float:
    """Share, 0..1, of the summed opacity whose centres lie more than 0.15 outside of a truth whose inside is known."""
    opacity = torch.sigmoid(gaussians.opacities.double())
    return float(opacity[truth.distance(gaussians.means) > _ADRIFT].sum() / opacity.sum().clamp_min(1e-30))


def visibility(gaussians: Gaussians) -> Float[Tensor, "N"]:
    """Sum of each Gaussian's blending weights over all pixels of the held-out cameras, in pixels."""
    return blending_weights(gaussians, held_out())


def _mean_to(points: Float[Tensor, "N 3"], truth: Truth) -> float:
    """Mean distance of the true surface to the nearest of the points; 2 if there are none."""
    return float(nearest_of(points, _some(truth.points)).mean()) if len(points) else FARTHEST


def _some(points: Float[Tensor, "N 3"]) -> Float[Tensor, "M 3"]:
    """At most MOST of the points, evenly from all views: enough for a mean to three digits."""
    return points[:: -(-len(points) // MOST)]
