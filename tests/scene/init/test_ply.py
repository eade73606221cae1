import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

import gsdistill.export.ply as export
from gsdistill.core.errors import BadFile, Notice
from gsdistill.core.structs import SH_C0
from gsdistill.scene.init.ball import Ball
from gsdistill.scene.init.ply import Ply

NAMES = [
    *(("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")),
    *(("Red", "Green", "Blue"), ("R", "G", "B"), ("DIFFUSE_RED", "DIFFUSE_GREEN", "DIFFUSE_BLUE")),
]


def create(path, **settings):
    return Ply(path=path, **settings).create("", torch.Generator().manual_seed(0))


def cloud(path, points, colors=None, kind="u1", names=("red", "green", "blue")):
    rows = np.empty(
        len(points), dtype=[(n, "f4") for n in "xyz"] + ([(n, kind) for n in names] if colors is not None else [])
    )
    for i, name in enumerate("xyz"):
        rows[name] = np.asarray(points)[:, i]
    for i, name in enumerate(names if colors is not None else ()):
        rows[name] = np.asarray(colors)[:, i]
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(path))
    return path


def test_a_splat_is_taken_as_it_is(tmp_path):
    scene = Ball(count=20, sh_degree=2).create("", torch.Generator().manual_seed(1))
    export.Ply(frame="world").write(scene, tmp_path / "a.ply")
    again = create(tmp_path / "a.ply", radius=0.1)
    assert all(torch.equal(getattr(scene, name), getattr(again, name)) for name in scene.tensors())


def test_half_a_splat_is_not_a_point_cloud(tmp_path):
    path = cloud(tmp_path / "a.ply", np.eye(4, 3), np.ones((4, 3)), "f4", ("opacity", "scale_0", "rot_0"))
    with pytest.raises(BadFile, match="f_dc_0"):
        create(path)


def test_a_grid_gets_its_spacing_as_size_and_fits_the_ball(tmp_path):
    axis = np.arange(5) * 2.0 + 100.0
    points = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
    scene = create(cloud(tmp_path / "a.ply", points), radius=0.8, scale=0.5)
    spacing = 0.8 / (2 * 3**0.5)  # the corner lies two steps along each axis from the centre
    assert torch.allclose(scene.means.norm(dim=-1).max(), torch.tensor(0.8))
    assert scene.means.mean(dim=0).abs().max() < 1e-5
    assert torch.allclose(scene.scales.exp(), torch.full((125, 3), 0.5 * spacing), rtol=1e-4)
    assert torch.equal(scene.sh, torch.zeros(125, 1, 3))  # no colours: grey


def test_neighbour_distances_match_brute_force(tmp_path):
    points = np.random.default_rng(0).normal(size=(200, 3)).astype("f4")
    scene = create(cloud(tmp_path / "a.ply", points))
    means = scene.means.double().numpy()
    distances = np.sort(np.linalg.norm(means[:, None] - means[None], axis=-1), axis=1)[:, 1:4].mean(axis=1)
    assert np.allclose(scene.scales[:, 0].exp().numpy(), distances, rtol=1e-4)


@pytest.mark.parametrize(("kind", "top"), [("u1", 255), ("u2", 65535), ("i2", 32767), ("f4", 1.0)])
@pytest.mark.parametrize("names", NAMES)
def test_colours_of_any_type_are_scaled_to_one(tmp_path, kind, top, names):
    colors = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]) * top
    scene = create(cloud(tmp_path / "a.ply", np.eye(4, 3), colors, kind, names))
    assert np.allclose(0.5 + SH_C0 * scene.sh[:, 0].numpy(), colors / top, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "top", "most"),
    [("f4", 255, 254.5), ("f4", 255, 3.0), ("f8", 255, 255.0), ("i4", 255, 200), ("u2", 255, 7), ("f4", 65535, 4e4)],
)
def test_colours_that_go_beyond_their_types_custom_are_scaled_and_told(tmp_path, kind, top, most):
    colors = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, most]])
    path = cloud(tmp_path / "a.ply", np.eye(4, 3), colors, kind)
    with pytest.warns(Notice, match=rf"colours red green blue go up to {most:g} and are divided by {top}$"):
        scene = create(path)
    assert np.allclose(0.5 + SH_C0 * scene.sh[:, 0].numpy(), colors / top, atol=1e-6)


@pytest.mark.parametrize("names", [("red", "green", "alpha"), ("ambient_red", "ambient_green", "ambient_blue")])
def test_what_looks_like_colours_and_is_none_is_told(tmp_path, names):
    path = cloud(tmp_path / "a.ply", np.eye(4, 3), np.ones((4, 3)), "f4", names)
    with pytest.warns(
        Notice, match=rf"all points are grey: {names[0]}, {names[1]}.* are not read as colours, only red"
    ):
        assert not create(path).sh.any()


@pytest.mark.parametrize("far", [[[1e6, 0, 0], [1e6, 1, 0]], [[30, 0, 0], [0, -1e30, 0], [0, 0, 400]]])
def test_points_far_away_are_left_out_and_told(tmp_path, far):
    points = np.random.default_rng(0).normal(size=(300, 3)).astype("f4")
    plain = create(cloud(tmp_path / "a.ply", points, np.full((300, 3), 7)))
    path = cloud(tmp_path / "b.ply", np.concatenate([far, points]), np.full((300 + len(far), 3), 7))
    with pytest.warns(
        Notice, match=rf"{len(far)} of 30{len(far)} points are left out: .* --init.reach none keeps them"
    ):
        found = create(path)
    assert all(torch.equal(getattr(found, name), getattr(plain, name)) for name in plain.tensors())
    assert len(create(path, reach=None)) == 300 + len(far) > 300 == len(plain)


def test_a_cloud_without_far_points_stays_whole(tmp_path):
    g = np.random.default_rng(0)
    balls = g.normal(size=(400, 3)) + np.where(np.arange(400) < 100, 40.0, 0.0)[:, None]  # a quarter of it lies apart
    rod = np.stack([np.linspace(0, 50, 300), *g.normal(size=(2, 300)) * 0.01], 1)
    for points in (g.normal(size=(5000, 3)), balls, rod, np.repeat([[0.0, 0, 0], [1, 1, 1]], [40, 3], axis=0)):
        path = cloud(tmp_path / "a.ply", points)
        assert torch.equal(create(path).means, create(path, reach=None).means) and len(create(path)) == len(points)


def test_a_survey_far_from_the_origin_keeps_its_shape(tmp_path):
    points = np.random.default_rng(0).normal(size=(300, 3))
    rows = np.empty(300, [(name, "f8") for name in "xyz"])
    for name, column, offset in zip("xyz", points.T, (5e5, 4.5e6, 100.0), strict=True):
        rows[name] = column + offset
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(tmp_path / "b.ply"))
    near = create(cloud(tmp_path / "a.ply", points))
    assert (create(tmp_path / "b.ply").means - near.means).abs().max() < 1e-6


def test_duplicate_points_keep_a_finite_size(tmp_path):
    scene = create(cloud(tmp_path / "a.ply", [[0, 0, 0]] * 5 + [[1, 1, 1]]))
    assert torch.isfinite(scene.scales).all()


def test_a_large_cloud_is_thinned_by_the_generator(tmp_path):
    points = np.random.default_rng(0).normal(size=(300, 3))
    path = cloud(tmp_path / "a.ply", points)
    first, second = create(path, limit=100), create(path, limit=100)
    assert len(first) == 100 and torch.equal(first.means, second.means)


@pytest.mark.parametrize(
    ("points", "colors", "said"),
    [
        ([[0, 0, 0], [1, 1, 1]], None, "at least four points"),
        ([[2, 2, 2]] * 6, None, "not all in one place"),
        ([[0, 0, np.nan], *np.eye(3).tolist()], None, r"z \(1\)"),
        (np.eye(4, 3), np.full((4, 3), -1.0), "must lie in 0..1, 0..255 or 0..65535; they go from -1 to -1"),
        (np.eye(4, 3), np.full((4, 3), 1.5), "they go from 1.5 to 1.5"),
        (np.eye(4, 3), np.full((4, 3), 1e6), "they go from 1e"),
    ],
)
def test_clouds_that_cannot_be_used(tmp_path, points, colors, said):
    with pytest.raises(BadFile, match=said):
        create(cloud(tmp_path / "a.ply", points, colors, "f4"))
