"""Where objects stand, how they look and where their surface is, against other ways to know it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from trimesh import Trimesh, creation, proximity, util

from gsdistill.scene.viewpoints import orbit
from gsdistill.worlds.objects import Objects
from gsdistill.worlds.objects.drawing import draw, placed
from gsdistill.worlds.objects.meshes import Mesh
from gsdistill.worlds.objects.stacking import extremes, places, support
from gsdistill.worlds.objects.surface import distances, sample, seen_corners
from gsdistill.worlds.shapes import Shapes
from objects import needs_meshes

WORLD = Objects()


def mesh_of(shape: Trimesh, color=(0.2, 0.4, 0.6), painted=False) -> Mesh:
    count = len(shape.faces)
    colors = np.broadcast_to(np.float32(color), (count, 3))
    return Mesh(
        np.asarray(shape.vertices),
        np.asarray(shape.faces, np.int32),
        colors,
        np.full(count, float(painted), np.float32),
    )


def box(low, high) -> Trimesh:
    low, high = np.array(low), np.array(high)
    return creation.box(high - low).apply_translation((low + high) / 2)


CHAIR = util.concatenate(
    [
        box((-0.4, -0.4, 0.0), (0.4, 0.4, 0.1)),
        box((-0.4, -0.4, 0.1), (-0.3, 0.4, 0.8)),
        box((0.3, 0.3, -0.8), (0.4, 0.4, 0)),
    ]
)  # a seat, a back, a leg


def test_what_is_on_a_chair_stands_on_its_seat():
    x, y, z = support(CHAIR.vertices, np.asarray(CHAIR.faces, np.int32))
    assert z == pytest.approx(0.1, abs=1e-6) and abs(y) < 0.05 and -0.1 < x < 0.2


def test_what_is_on_a_ball_stands_on_its_top():
    ball = creation.icosphere(4, 0.8)
    assert support(ball.vertices, np.asarray(ball.faces, np.int32)) == pytest.approx([0, 0, 0.8], abs=0.12)


def test_a_stack_fills_the_ball_and_its_parts_touch():
    top, bottom = creation.icosphere(3, 0.7), CHAIR
    standing = support(bottom.vertices, np.asarray(bottom.faces, np.int32))
    upper, lower = places([extremes(top.vertices), extremes(bottom.vertices)], standing)
    above = upper.scale * top.vertices + upper.offset
    seat = lower.scale * 0.1 + lower.offset[2]
    assert upper.scale / lower.scale == pytest.approx(0.5 / 0.62)
    assert 0.0 < seat - above[:, 2].min() < 0.03
    both = np.concatenate([above, lower.scale * bottom.vertices + lower.offset])
    assert 0.85 < np.linalg.norm(both, axis=1).max() < 0.93  # by 26 points of each


@pytest.mark.parametrize("solid", ["cube", "octahedron", "cross"])
def test_triangles_look_as_the_rays_of_the_same_solid(solid):
    made = {
        "cube": box((-0.52,) * 3, (0.52,) * 3),
        "octahedron": Trimesh(0.88 * np.concatenate([np.eye(3), -np.eye(3)]), [
            (x, y, z) for x in (0, 3) for y in (1, 4) for z in (2, 5)
        ]),
        "cross": util.concatenate([box(-size, size) for size in 0.22 + 0.54 * np.eye(3)]),
    }[solid]  # fmt: skip
    cameras = orbit(5, 40)
    ours = draw(placed([mesh_of(made, painted=True)], [True]), cameras, 3)
    true = Shapes().trace((solid,), cameras, 3)
    assert (ours.coverage - true.coverage).abs().mean() < 1e-3  # the rays march to within 0.0002 of the surface
    assert (ours.shade - true.shade).abs().mean() < 1e-3
    assert ours.fixed is not None and not ours.fixed.any()


def test_a_word_repaints_the_main_faces_alone():
    both = util.concatenate([box((-0.5, -0.5, -0.5), (0.5, 0.5, 0)), box((-0.2, -0.2, 0), (0.2, 0.2, 0.4))])
    mesh = mesh_of(both)
    mesh.shades[:12] = 0.8
    cameras = orbit(3, 32)
    own, painted = (draw(placed([mesh], [word]), cameras, 2) for word in (False, True))
    assert not own.shade.any() and torch.equal(own.coverage, painted.coverage)
    whole = own.fixed / torch.tensor([0.2, 0.4, 0.6])[:, None, None]  # light of all faces
    rest = painted.fixed / torch.tensor([0.2, 0.4, 0.6])[:, None, None]
    torch.testing.assert_close(painted.shade[:, 0] / 0.8 + rest[:, 0], whole[:, 0])
    assert painted.shade.any() and rest.any()


def test_distances_are_those_of_another_program():
    rng = np.random.default_rng(1)
    shape = util.concatenate([creation.icosphere(1, 0.6), CHAIR])
    points = rng.uniform(-1.2, 1.2, (300, 3))
    expected = proximity.closest_point_naive(shape, points)[1]
    np.testing.assert_allclose(distances(np.asarray(shape.triangles), points), expected, atol=1e-9)


def test_the_surface_is_what_can_be_seen():
    """A ball inside of a closed box is not of it; points are even by area."""
    scene = placed([mesh_of(util.concatenate([box((-0.5,) * 3, (0.5,) * 3), creation.icosphere(2, 0.3)]))], [False])
    corners = seen_corners(scene)
    assert len(corners) == 12
    points = sample(corners, 6000, np.random.default_rng(0))
    assert np.abs(points).max(1) == pytest.approx(0.5)
    share = [(np.abs(points[:, axis]) > 0.4999).mean() for axis in range(3)]
    assert share == pytest.approx([1 / 3] * 3, abs=0.03)


@needs_meshes
def test_a_bear_sits_on_the_seat_of_each_chair():
    for top, bottom in WORLD.meant(WORLD.parse("a teddy bear on a chair")):
        cameras = orbit(4, 64)
        seen = WORLD.trace((top, bottom), cameras, 2)
        rows = seen.coverage.amax((0, 3))  # of each part
        lowest = [int(torch.nonzero(rows[part] > 0.5).max()) for part in (0, 1)]
        highest = [int(torch.nonzero(rows[part] > 0.5).min()) for part in (0, 1)]
        assert highest[0] < highest[1] + 20 and lowest[0] < lowest[1] - 5, bottom
        assert seen.coverage[:, 0].sum() > 0.15 * seen.coverage.sum()


@needs_meshes
def test_a_colour_is_that_of_the_picture():
    things = WORLD.parse("a blue sofa")
    pictures, alpha = WORLD.pictures(things, orbit(6, 48), torch.zeros(6, 3))
    seen = pictures[alpha[..., 0] > 0.9]
    hue = seen / seen.amax(1, keepdim=True).clamp_min(1e-3)
    assert (hue[:, 2] > 0.95).float().mean() > 0.85
