"""The surface of a scene of meshes as cameras see it: points on it, and how far others are from it.

What no camera sees, such as the seats inside of a car, is not of the surface. Triangles of free models are not closed,
so inside and outside are not known.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from gsdistill.disk.compiled import compiled
from gsdistill.renderer.meshes import cover
from gsdistill.worlds.objects.drawing import Scene

__all__ = ["distances", "sample", "scatter", "seen_corners", "seen_faces"]

_VIEWS, _SIZE, _DISTANCE, _FOCAL = 96, 128, 3.2, 176.0


def seen_faces(scene: Scene) -> NDArray[np.int64]:
    """The numbers of the triangles that a ray of one of 96 cameras all around meets."""
    seen = np.zeros(len(scene.faces), bool)
    lens = np.array([[_FOCAL, 0, _SIZE / 2], [0, _FOCAL, _SIZE / 2], [0, 0, 1.0]])
    for pose in _all_around():
        met = cover(scene.vertices, scene.faces, pose, lens, (_SIZE, _SIZE), 1).faces
        seen[np.unique(met[met >= 0])] = True
    return np.flatnonzero(seen)


def seen_corners(scene: Scene) -> NDArray[np.float64]:
    """The corners [F, 3, 3] of :func:`seen_faces`."""
    return scene.vertices[scene.faces[seen_faces(scene)]]


def sample(corners: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """``count`` points [count, 3] on triangles with these corners, even by area."""
    return scatter(corners, count, rng)[0]


def scatter(
    corners: NDArray[np.float64], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The same points, and the numbers [count] of the triangles that they lie on."""
    a, b, c = corners.swapaxes(0, 1)
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    of = rng.choice(len(corners), count, p=areas / areas.sum())
    root, share = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    return (1 - root) * a[of] + root * (1 - share) * b[of] + root * share * c[of], of


@functools.cache
def _all_around() -> NDArray[np.float64]:
    """World-to-camera matrices [96, 4, 4] on a spiral from pole to pole."""
    turns = np.arange(_VIEWS)
    z = 1 - (2 * turns + 1) / _VIEWS
    azimuth = turns * np.pi * (3 - 5**0.5)
    back = np.stack([np.cos(azimuth) * np.sqrt(1 - z**2), np.sin(azimuth) * np.sqrt(1 - z**2), z], 1)
    right = np.stack([-np.sin(azimuth), np.cos(azimuth), np.zeros(_VIEWS)], 1)
    poses = np.tile(np.eye(4), (_VIEWS, 1, 1))
    poses[:, :3, :3] = np.stack([right, -np.cross(back, right), -back], 1)
    poses[:, 2, 3] = _DISTANCE
    return poses


def distances(corners: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distance [N] of each point [N, 3] to the nearest of the triangles with these corners [F, 3, 3]."""
    from scipy.spatial import KDTree

    middles = corners.mean(1)
    reaches = np.linalg.norm(corners - middles[:, None], axis=2).max(1)
    return _distances(corners, middles, reaches, points, KDTree(middles).query(points)[1])


@compiled(fast=False)
def _distances(
    corners: NDArray[np.float64],
    middles: NDArray[np.float64],
    reaches: NDArray[np.float64],
    points: NDArray[np.float64],
    first: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Begin with the triangle of the nearest middle, and leave out those that are too far for their size."""
    out = np.empty(points.shape[0])
    for i in range(points.shape[0]):
        p = points[i]
        best = np.sqrt(_squared(corners[first[i]], p))
        for f in range(corners.shape[0]):
            x, y, z = middles[f, 0] - p[0], middles[f, 1] - p[1], middles[f, 2] - p[2]
            reach = best + reaches[f]
            if x * x + y * y + z * z < reach * reach:
                best = min(best, np.sqrt(_squared(corners[f], p)))
        out[i] = best
    return out


@compiled(fast=False, inline=True)
def _squared(corners: NDArray[np.float64], p: NDArray[np.float64]) -> float:
    """The squared distance of a point to a triangle."""
    abx, aby, abz = corners[1, 0] - corners[0, 0], corners[1, 1] - corners[0, 1], corners[1, 2] - corners[0, 2]
    acx, acy, acz = corners[2, 0] - corners[0, 0], corners[2, 1] - corners[0, 1], corners[2, 2] - corners[0, 2]
    apx, apy, apz = p[0] - corners[0, 0], p[1] - corners[0, 1], p[2] - corners[0, 2]
    ab_ab, ab_ac, ac_ac = (
        abx * abx + aby * aby + abz * abz,
        abx * acx + aby * acy + abz * acz,
        acx * acx + acy * acy + acz * acz,
    )
    ab_ap, ac_ap = abx * apx + aby * apy + abz * apz, acx * apx + acy * apy + acz * apz
    square = ab_ab * ac_ac - ab_ac * ab_ac
    v, w = 0.0, 0.0  # the nearest point is a + v ab + w ac
    inside = False
    if square > 0.0:
        v, w = (ac_ac * ab_ap - ab_ac * ac_ap) / square, (ab_ab * ac_ap - ab_ac * ab_ap) / square
        inside = v >= 0.0 and w >= 0.0 and v + w <= 1.0
    if inside:
        x, y, z = apx - v * abx - w * acx, apy - v * aby - w * acy, apz - v * abz - w * acz
        return x * x + y * y + z * z
    best = np.inf
    for edge in range(3):
        j = (edge + 1) % 3
        ex, ey, ez = (
            corners[j, 0] - corners[edge, 0],
            corners[j, 1] - corners[edge, 1],
            corners[j, 2] - corners[edge, 2],
        )
        px, py, pz = p[0] - corners[edge, 0], p[1] - corners[edge, 1], p[2] - corners[edge, 2]
        length = ex * ex + ey * ey + ez * ez
        t = min(1.0, max(0.0, (ex * px + ey * py + ez * pz) / length)) if length > 0.0 else 0.0
        x, y, z = px - t * ex, py - t * ey, pz - t * ez
        best = min(best, x * x + y * y + z * z)
    return best
