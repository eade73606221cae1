"""Fewer Gaussians with nearly the same pictures.

The importance of a Gaussian is what is seen of it from outside: its blending weights T_i alpha_i, summed over the
pixels of pictures from all around. What is hidden, faint or tiny goes first. Removal by importance alone tears holes
into a surface whose Gaussians count nearly alike, for the least important ones lie side by side. Therefore no more than
a fifth goes at a time, and then importance is measured anew: where some have gone, those that are left count more. And
at one time a Gaussian goes only if its nearest neighbours count more than it does, or if it counts less than a tenth of
the mean. At last all that stay are widened by the one factor with which the pictures come nearest to those of the
whole, in mean square.

Blending weights as importance: Z. Fan et al., LightGaussian, 2023. The holes, and drawing at random against them:
G. Fang and B. Wang, Mini-Splatting, 2024.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gsdistill.core.structs import Cameras, Gaussians
from gsdistill.renderer.base import blending_weights, render
from gsdistill.scene.edit import most_important, picked
from gsdistill.scene.extent import UnitBall
from gsdistill.scene.viewpoints import all_around

__all__ = ["framed", "importance", "reduced"]

VIEWS, AT_ONCE = 32, 8  # pictures by which importance is measured, and how many at a time
SMALLEST, LARGEST = 128, 256  # pixels of their sides: the root of the number of Gaussians, within these
MIDDLE = (0.01, 0.99)  # the share of the Gaussians that the pictures are to show
WIDEST, FARTHEST = 600.0, 1e18  # of a logarithm and of a framed position: their powers stay finite
LEFT = 0.8  # of the Gaussians after one round, at least
NEIGHBOURS = 3
UNSEEN = 0.1  # of the mean importance; below it neighbours do not matter
WIDER = (1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.6)


def reduced(gaussians: Gaussians, count: int) -> tuple[Gaussians, float]:
    """Return the ``count`` Gaussians that serve best, in their order, and the factor by which they are widened."""
    size = len(gaussians)
    if count >= size:
        return gaussians, 1.0
    whole, left = framed(gaussians), torch.arange(size)
    rounds = math.ceil(math.log(count / size) / math.log(LEFT))
    for done in range(1, rounds + 1):
        fewer = count if done == rounds else round(size * (count / size) ** (done / rounds))
        left = left[_kept(picked(whole, left), fewer)]
    factor = _closing(whole, picked(whole, left))
    return _widened(picked(gaussians, left), factor), factor


def framed(gaussians: Gaussians) -> Gaussians:
    """The splat moved and scaled to fill the unit ball, but for its outermost hundredths."""
    means, scales = gaussians.means.double(), gaussians.scales.double()
    x, y, z = centre = np.quantile(means.numpy(), MIDDLE, axis=0).mean(axis=0).tolist()
    reach = (means - means.new_tensor(centre)).norm(dim=1) + scales.amax(dim=1).clamp(max=WIDEST).exp()
    ball = UnitBall((x, y, z), max(float(np.quantile(reach.numpy(), MIDDLE[1])), 1e-12))
    inside = ball.inside(gaussians)
    return replace(inside, means=inside.means.clamp(-FARTHEST, FARTHEST))


def importance(gaussians: Gaussians) -> Float[Tensor, "N"]:
    """The blending weights of the Gaussians of a framed splat, in pixels; 0 for what no picture shows."""
    cameras, total = _all_around(len(gaussians)), torch.zeros(len(gaussians), dtype=torch.float64)
    for start in range(0, VIEWS, AT_ONCE):
        total += blending_weights(gaussians, cameras.pick(slice(start, start + AT_ONCE)))
    return total


def _kept(gaussians: Gaussians, count: int) -> Bool[Tensor, "N"]:
    """Which ``count`` of a framed splat stay in one round."""
    from scipy.spatial import KDTree

    weights, means = importance(gaussians), gaussians.means.numpy()
    ranks = weights.argsort(stable=True).argsort()
    near = torch.from_numpy(KDTree(means).query(means, min(1 + NEIGHBOURS, len(means)))[1]).reshape(len(means), -1)[
        :, 1:
    ]
    free = (ranks[:, None] < ranks[near]).all(dim=1) | (weights < UNSEEN * weights.mean())
    return most_important(ranks - len(ranks) * free.long(), count)


def _all_around(count: int) -> Cameras:
    """Cameras on the whole sphere, with pictures large enough for a splat of ``count`` Gaussians."""
    return all_around(VIEWS, min(max(SMALLEST, math.isqrt(count)), LARGEST))


def _closing(whole: Gaussians, few: Gaussians) -> float:
    """The factor of WIDER with which the pictures of ``few``, both framed, come nearest to those of ``whole``."""
    cameras = _all_around(len(whole)).pick(slice(0, VIEWS, VIEWS // AT_ONCE))
    grey = torch.full((len(cameras), 3), 0.5)
    with torch.no_grad():
        truth = render(whole, cameras, grey).images.clamp(0.0, 1.0)
        errors = {
            factor: float((render(_widened(few, factor), cameras, grey).images.clamp(0.0, 1.0) - truth).square().mean())
            for factor in WIDER
        }
    return min(WIDER, key=errors.__getitem__)


def _widened(gaussians: Gaussians, factor: float) -> Gaussians:
    return replace(gaussians, scales=gaussians.scales + math.log(factor))
