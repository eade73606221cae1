"""The z-buffer against rays that are met with every triangle, one by one."""

from __future__ import annotations

import numpy as np
import pytest

from gsdistill.renderer.meshes import NEAR, cover, means

POSE = np.eye(4)
POSE[2, 3] = 3.0
LENS = np.array([[30.0, 0, 16.5], [0, 28.0, 11.0], [0, 0, 1.0]])
SIZE = (22, 31)


def met(vertices, faces, side):
    """For each ray the triangle and the depth that Moeller and Trumbore's test finds, and how near to an edge it is."""
    local = vertices @ POSE[:3, :3].T + POSE[:3, 3]
    a, b, c = (local[faces[:, i]] for i in range(3))
    rows, columns = np.mgrid[: SIZE[0] * side, : SIZE[1] * side]
    x, y = (columns + 0.5) / side, (rows + 0.5) / side
    rays = np.stack([(x - LENS[0, 2]) / LENS[0, 0], (y - LENS[1, 2]) / LENS[1, 1], np.ones_like(x)], -1)[:, :, None]
    p = np.cross(rays, c - a)
    scale = (p * (b - a)).sum(-1)
    u = -(p * a).sum(-1) / scale
    q = np.cross(-a, b - a)
    v = (rays * q).sum(-1) / scale
    z = ((c - a) * q).sum(-1) / scale
    inner = np.minimum(np.minimum(u, v), 1 - u - v)
    z = np.where((inner >= 0) & (z > 0), z, np.inf)
    order = np.sort(z, -1)
    clear = (np.abs(inner).min(-1) > 1e-6) & ~((order[..., 0] < np.inf) & (order[..., 1] < order[..., 0] + 1e-9))
    return np.where(np.isfinite(z.min(-1)), z.argmin(-1), -1), z.min(-1), clear


@pytest.mark.parametrize("side", [1, 3])
def test_every_ray_meets_the_triangle_that_is_nearest(side):
    rng = np.random.default_rng(3)
    middles = rng.uniform(-1.2, 1.2, (60, 1, 3))
    vertices = (middles + rng.normal(0, 0.35, (60, 3, 3))).reshape(-1, 3)
    faces = np.arange(180, dtype=np.int32).reshape(-1, 3)
    hits = cover(vertices, faces, POSE, LENS, SIZE, side)
    nearest, depth, clear = met(vertices, faces, side)
    assert clear.mean() > 0.99
    assert (hits.faces == nearest)[clear].all() and (nearest >= 0).mean() > 0.3
    seen = clear & (nearest >= 0)
    np.testing.assert_allclose(1 / hits.nearness[seen], depth[seen], rtol=1e-9)


def test_neighbours_leave_no_ray_between_them():
    """Squares of two triangles whose corners and edges go through rays."""
    step = 3.0 / LENS[0, 0]
    x, y = np.meshgrid(np.arange(-8, 9) * step, np.arange(-6, 7) * 3.0 / LENS[1, 1])
    vertices = np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3)
    corner = (np.arange(12)[:, None] * 17 + np.arange(16)).ravel()
    faces = np.concatenate(
        [np.stack([corner, corner + 1, corner + 17], 1), np.stack([corner + 1, corner + 17, corner + 18], 1)]
    )
    lens = LENS.copy()
    lens[:2, 2] = 16.5, 11.5  # a ray at the corner in the middle
    hits = cover(vertices, faces.astype(np.int32), POSE, lens, SIZE, 1)
    assert (hits.faces[5:18, 8:25] >= 0).all() and hits.faces[4, 16] == hits.faces[11, 7] == -1


def test_what_is_behind_the_camera_or_flat_is_not_seen():
    vertices = np.array(
        [[0, 0, NEAR / 2 - 3], [1, 0, 0], [0, 1, 0], [0.5, 0, 0], [-1, -1, -5.0], [1, -1, -5.0], [0, 1, -5.0]]
    )
    faces = np.array([[0, 1, 2], [1, 3, 3], [4, 5, 6]], np.int32)
    assert (cover(vertices, faces, POSE, LENS, SIZE, 1).faces == -1).all()


def test_means_count_rays_that_meet_nothing_as_zero():
    vertices = np.array([[-9.0, -9, 0], [-9, 9, 0], [0, 9, 0], [0, -9, 0]])  # the left half of the picture
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    lens = LENS.copy()
    lens[0, 2] = 15.5  # the edge halves the 16th column
    values = np.array([[2.0, 1.0], [2.0, 1.0]], np.float32)
    shown = means(cover(vertices, faces, POSE, lens, SIZE, 4), values, 4)
    np.testing.assert_allclose(shown[:, :15], np.broadcast_to([2.0, 1.0], (22, 15, 2)))
    np.testing.assert_allclose(shown[:, 15], np.broadcast_to([1.0, 0.5], (22, 2)))
    assert not shown[:, 16:].any()
