"""How strong the colours of a splat are, and how much splats of one prompt differ from seed to seed.

Everything is measured on the pictures from the held-out cameras (views.py); where a background shows, it is mid grey. A
picture has 11 features: the silhouette's share of the picture; mean and standard deviation of red, green and blue
inside the silhouette; and the mean gradient of the luminance in four bins of direction (0, 45, 90 and 135 degrees,
shared linearly between neighbours, as in HOG, Dalal and Triggs 2005). Each is divided by its standard deviation over
the true pictures of the 154 single objects.

Two seeds give two sets of features, one per camera. With their means m and covariances S, the Frechet distance between
the two Gaussians (Dowson and Landau 1982) is |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)). This is the CROSS-FID
of FSD (arXiv 2405.10988) with these features in place of Inception's, whose 2,048 dimensions 32 cameras cannot fill,
and for one prompt at a time. Compare it between methods, not with published numbers.
"""

from __future__ import annotations

import math
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.evaluation.views import Pictures

__all__ = ["LUMINANCE", "SCALES", "features", "frechet", "frechet_between", "raw_features", "rms_between", "saturation"]

_GREY = 0.5
LUMINANCE = (0.2126, 0.7152, 0.0722)
_BINS = 4

# The standard deviation of each feature over the true pictures, see the module.
SCALES = (0.0634, 0.298, 0.242, 0.288, 0.0455, 0.037, 0.042, 0.00134, 0.000704, 0.000935, 0.000683)


def saturation(pictures: Pictures) -> float:
    """Mean HSV saturation, (max - min) / max of RGB, over all pixels inside the silhouettes; 0 if there are none."""
    colours = pictures.colours[pictures.silhouettes]
    if not len(colours):
        return 0.0
    highest, lowest = colours.amax(1), colours.amin(1)
    return float(((highest - lowest) / highest.clamp_min(1e-6)).mean())


def rms_between(seeds: list[Pictures]) -> float | None:
    """Root mean square difference between two seeds' pictures, RGB in 0..1, mean over all pairs; None for one seed."""
    images = [over_grey(pictures) for pictures in seeds]
    return _mean([float((a - b).square().mean().sqrt()) for a, b in combinations(images, 2)])


def frechet_between(seeds: list[Pictures]) -> float | None:
    """Frechet distance between two seeds' features, see the module, mean over all pairs; None for one seed."""
    return _mean([frechet(a, b) for a, b in combinations(map(features, seeds), 2)])


def frechet(a: Float[Tensor, "M D"], b: Float[Tensor, "N D"]) -> float:
    """Frechet distance between the Gaussians fitted to two sets of points; their covariances divide by M and by N.

    The trace of (S_a S_b)^(1/2) is the sum of the roots of the eigenvalues of the symmetric R S_b R, R = S_a^(1/2).
    """
    a, b = a.double(), b.double()
    first, second = (torch.cov(x.T, correction=0).reshape(x.shape[1], x.shape[1]) for x in (a, b))
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp_min(0.0).sqrt()) @ vectors.T
    shared = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0.0).sqrt().sum()
    moved = (a.mean(0) - b.mean(0)).square().sum()
    return max(0.0, float(moved + first.trace() + second.trace() - 2.0 * shared))


def features(pictures: Pictures) -> Float[Tensor, "B 11"]:
    """The features of each picture, in units of their standard deviations over the world, see the module."""
    return raw_features(pictures) / torch.tensor(SCALES, dtype=torch.float64)


def raw_features(pictures: Pictures) -> Float[Tensor, "B 11"]:
    """The features in their own units: shares and colours in 0..1, gradients in luminance per pixel."""
    inside = pictures.silhouettes[..., None].double()
    count = inside.sum((1, 2)).clamp_min(1.0)
    colours = pictures.colours.double()
    mean = (inside * colours).sum((1, 2)) / count
    spread = ((inside * (colours - mean[:, None, None]).square()).sum((1, 2)) / count).sqrt()
    return torch.cat([inside.mean((1, 2)), mean, spread, _gradients(over_grey(pictures))], dim=1)


def over_grey(pictures: Pictures) -> Float[Tensor, "B H W 3"]:
    """The pictures over mid grey."""
    return pictures.body + (1.0 - pictures.alpha) * _GREY


def _gradients(images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B 4"]:
    """Mean size of the luminance's gradient by central differences, in each bin of direction; without the border."""
    light = images.double() @ torch.tensor(LUMINANCE, dtype=torch.float64)
    right = 0.5 * (light[:, 1:-1, 2:] - light[:, 1:-1, :-2])
    down = 0.5 * (light[:, 2:, 1:-1] - light[:, :-2, 1:-1])
    place = torch.remainder(torch.atan2(down, right), math.pi) * (_BINS / math.pi)
    centres = torch.arange(_BINS, dtype=torch.float64)
    away = (place[..., None] - centres).abs()
    share = (1.0 - torch.minimum(away, _BINS - away)).clamp_min(0.0)
    return (torch.hypot(right, down)[..., None] * share).mean((1, 2))


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
