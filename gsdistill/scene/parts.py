"""Which Gaussians hang together: the connected parts of a splat.

A Gaussian of opacity o, mean m and covariance C reaches as far as its own alpha stays above a level l: to the ellipsoid
d^T C^-1 d = q^2, q = sqrt(2 ln(o / l)), or, where o <= l, to its mean alone. Along a direction u the ellipsoid reaches
q sqrt(u^T C u), its half width. Two Gaussians touch where, along the line between their means, these reaches together
span the distance:

    |m_i - m_j| <= q_i sqrt(u^T C_i u) + q_j sqrt(u^T C_j u),   u = (m_i - m_j) / |m_i - m_j|.

Parts are the connected components of that graph, exactly. First each Gaussian is compared with its nearest neighbours,
which joins nearly all. Then the Gaussians are taken by octaves of their ellipsoid's longest half axis e: each with e in
(h / 2, h] is compared with all of e <= h, which cannot touch it from beyond 2 h. Pairs inside the part that is largest
so far are skipped, so that the time depends on what is not joined yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from gsdistill.core.structs import Gaussians, on_processor

__all__ = ["LEVEL", "parts"]

LEVEL = 0.05  # alpha
NEAREST = 9  # the Gaussian itself and eight more
AT_ONCE = 2_000_000  # pairs that are held in memory

Pairs: TypeAlias = tuple[NDArray[Any], NDArray[Any]]


def parts(gaussians: Gaussians, level: float = LEVEL) -> Int[Tensor, "N"]:
    """The number of each Gaussian's part: 0 is the part with the most summed opacity, 1 the next, and so on.

    ``level``, above 0, is the alpha at which a Gaussian ends; a fainter Gaussian is a part of its own, unless another
    one reaches its mean. The labels are on the CPU, of type int64.
    """
    splat = on_processor(gaussians)
    if not len(splat):
        return torch.zeros(0, dtype=torch.int64)
    opacities = torch.sigmoid(splat.opacities.double())
    means, factors = splat.means.double().numpy(), _factors(splat, opacities, level).numpy()
    longest = np.linalg.norm(factors, axis=1).max(axis=1)
    roots = np.arange(len(splat))
    for first, second in _neighbours(means):
        roots = _joined(roots, *_touching(means, factors, first, second))
    for far, long, shorter in _octaves(longest):
        outside = roots != np.bincount(roots).argmax()
        for some, others in ((long & outside, shorter), (long & ~outside, shorter & outside)):
            for first, second in _near(means, some, others, far):
                roots = _joined(roots, *_touching(means, factors, first, second))
    return _by_weight(torch.from_numpy(roots).long(), opacities)


def _factors(splat: Gaussians, opacities: Float[Tensor, "N"], level: float) -> Float[Tensor, "N 3 3"]:
    """The half axes of the ellipsoids as columns, q R S: the half width along u is |u^T q R S|."""
    from scipy.spatial.transform import Rotation

    q = (2.0 * (opacities / level).clamp_min(1.0).log()).sqrt()
    axes = torch.from_numpy(Rotation.from_quat(splat.quats.double().numpy()[:, [1, 2, 3, 0]]).as_matrix())
    return axes * (q[:, None] * splat.scales.double().exp())[:, None, :]


def _neighbours(means: NDArray[np.float64]) -> Iterator[Pairs]:
    """Pairs of each Gaussian and its nearest others, the nearest first."""
    from scipy.spatial import KDTree

    near = KDTree(means).query(means, min(NEAREST, len(means)))[1].reshape(len(means), -1)
    for column in near.T[1:]:
        yield np.arange(len(means)), column


def _octaves(longest: NDArray[np.float64]) -> Iterator[tuple[float, NDArray[np.bool_], NDArray[np.bool_]]]:
    """For each octave: from how far two of its Gaussians can touch, which are in it, and which in it or a lower one."""
    octaves = np.where(longest > 0, np.ceil(np.log2(np.maximum(longest, 1e-300))), -np.inf)
    for octave in np.unique(octaves[longest > 0]):
        yield 2.0 * 2.0**octave, octaves == octave, octaves <= octave


def _near(
    means: NDArray[np.float64], some: NDArray[np.bool_], others: NDArray[np.bool_], far: float
) -> Iterator[Pairs]:
    """All pairs, one of ``some`` and one of ``others``, whose means are at most ``far`` apart, block by block."""
    from scipy.spatial import KDTree

    first, second = np.flatnonzero(some), np.flatnonzero(others)
    if not (len(first) and len(second)):
        return
    tree = KDTree(means[second])
    counts = np.cumsum(tree.query_ball_point(means[first], far, return_length=True))
    for rows in np.split(first, np.flatnonzero(np.diff(counts // AT_ONCE)) + 1):
        pairs = KDTree(means[rows]).sparse_distance_matrix(tree, far, output_type="ndarray")
        yield rows[pairs["i"]], second[pairs["j"]]


def _touching(
    means: NDArray[np.float64], factors: NDArray[np.float64], first: NDArray[Any], second: NDArray[Any]
) -> Pairs:
    """Those of the pairs that touch; the condition is multiplied by the distance, so that no division is needed."""
    between = means[first] - means[second]
    reach = sum(np.linalg.norm(np.einsum("ni,nij->nj", between, factors[one]), axis=1) for one in (first, second))
    touching = (between**2).sum(axis=1) <= reach
    return first[touching], second[touching]


def _joined(roots: NDArray[Any], first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Labels in which the two parts of every pair are merged."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = len(roots)
    edges = coo_array((np.ones(len(first), dtype=bool), (roots[first], roots[second])), shape=(size, size))
    return connected_components(edges, directed=False)[1][roots]


def _by_weight(labels: Int[Tensor, "N"], opacities: Float[Tensor, "N"]) -> Int[Tensor, "N"]:
    """The same parts, numbered from the one with the most summed opacity on; of equal ones the earlier comes first."""
    _, labels = labels.unique(return_inverse=True)
    return torch.bincount(labels, opacities).argsort(descending=True, stable=True).argsort()[labels]
