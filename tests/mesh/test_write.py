import importlib.util
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

import gsdistill.mesh.write as writing
from gsdistill.core.errors import ConfigError, NotInstalled, OutputError
from gsdistill.core.frames import FRAMES, MATRICES
from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.mesh.atlas import GAP, texels, unfolded
from gsdistill.mesh.photographs import centred, photograph
from gsdistill.mesh.settings import MeshSettings
from gsdistill.mesh.solid import surface
from gsdistill.mesh.write import companions, write_mesh
from gsdistill.renderer.base import render
from gsdistill.scene.init.mesh import Mesh
from gsdistill.scene.mesh import read_mesh
from gsdistill.scene.surface import sample_surface as sample_triangles
from gsdistill.scene.viewpoints import orbit
from gsdistill.worlds.base import Thing
from gsdistill.worlds.shapes.solids import distances
from gsdistill.worlds.shapes.surface import sample_surface
from gsdistill.worlds.shapes.world import build

SMALL = MeshSettings(resolution=40, texture=128)
PLAIN = replace(SMALL, texture=None)
SIZE = 0.05  # standard deviation of the Gaussians on the surface
RED, BLUE = (0.8, 0.1, 0.2), (0.1, 0.3, 0.9)


def parts_of(shape: str) -> np.ndarray:
    return build((Thing("white", shape),)).parts


def covered(shape: str, count: int = 2500) -> Gaussians:
    """Opaque Gaussians on the true surface; the object's left half (y > 0) is red, the right one blue."""
    means = torch.from_numpy(sample_surface(parts_of(shape), count, np.random.default_rng(0))).float()
    colours = torch.where(means[:, 1:2] > 0, torch.tensor(RED), torch.tensor(BLUE))
    return Gaussians(
        means,
        torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
        torch.full((count, 3), math.log(SIZE)),
        torch.full((count,), 3.0),
        ((colours - 0.5) / SH_C0)[:, None],
    )


@pytest.fixture(scope="module")
def torus() -> Gaussians:
    return covered("torus")


def loaded(path) -> trimesh.Trimesh:
    """The triangles of a file, welded where a texture cut them."""
    mesh = trimesh.load_mesh(path, process=False)
    welded = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    welded.merge_vertices(digits_vertex=6)
    return welded


@pytest.mark.parametrize(("shape", "euler"), [("sphere", 2), ("torus", 0), ("chair", 2)])
def test_a_known_surface_comes_back_closed_and_in_its_place(tmp_path, shape, euler):
    figures = write_mesh(covered(shape), tmp_path / "a.glb", PLAIN, frame="world")
    mesh = loaded(tmp_path / "a.glb")
    assert figures.watertight and mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.euler_number == euler and figures.parts == mesh.body_count == 1
    assert (figures.faces, figures.vertices) == (len(mesh.faces), len(mesh.vertices))
    assert figures.volume == pytest.approx(mesh.volume, rel=1e-4) and figures.area == pytest.approx(mesh.area, rel=1e-4)
    signed = distances(parts_of(shape), np.ascontiguousarray(mesh.vertices))
    # where Gaussians overlap, what is seen of them ends two to three deviations outside of their means
    assert SIZE < signed.mean() < 3 * SIZE and np.abs(signed).max() < 4 * SIZE
    true = sample_surface(parts_of(shape), 500, np.random.default_rng(1))
    assert cKDTree(mesh.vertices).query(true)[0].mean() < 3 * SIZE


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["torus", "mug", "chair"])
def test_the_mesh_has_the_silhouettes_of_the_splat(tmp_path, shape):
    scene = covered(shape)
    write_mesh(scene, tmp_path / "a.glb", PLAIN, frame="world")
    cameras = orbit(3, 64, elevation=35.0)
    splat = render(scene, cameras, torch.zeros(3, 3)).alphas[..., 0] > 0.5
    points, _ = trimesh.sample.sample_surface(loaded(tmp_path / "a.glb"), 60_000, seed=0)
    mesh = torch.zeros_like(splat)
    for covering, view, k in zip(mesh, cameras.viewmats, cameras.Ks, strict=True):
        seen = torch.from_numpy(points).float() @ view[:3, :3].T + view[:3, 3]
        column, row = (seen[:, :2] / seen[:, 2:] * k[0, 0] + k[:2, 2]).long().unbind(dim=1)
        covering[row, column] = True
    assert (splat & mesh).sum() / (splat | mesh).sum() > 0.94


@pytest.mark.slow
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", ["a.glb", "a.obj"])
def test_every_frame_is_the_world_turned_and_its_outside_stays_outside(tmp_path, frame, name):
    scene = covered("chair", 1000)
    write_mesh(scene, tmp_path / "world" / name, PLAIN, frame="world")
    write_mesh(scene, tmp_path / name, PLAIN, frame=frame)
    world, turned = loaded(tmp_path / "world" / name), loaded(tmp_path / name)
    expected = world.vertices @ np.array(MATRICES[frame], dtype=float).T
    assert np.allclose(np.sort(expected, axis=0), np.sort(turned.vertices, axis=0), atol=1e-5)
    assert turned.is_watertight and turned.volume == pytest.approx(world.volume, rel=1e-4)  # signed


@pytest.mark.slow
def test_a_scene_far_from_the_unit_ball_keeps_its_shape(tmp_path, torus):
    moved = replace(torus, means=50.0 * torus.means + 1000.0, scales=torus.scales + math.log(50.0))
    here = write_mesh(torus, tmp_path / "a.glb", PLAIN, "world")
    there = write_mesh(moved, tmp_path / "b.glb", PLAIN, "world")
    assert there.volume == pytest.approx(50.0**3 * here.volume, rel=0.01) and there.watertight
    assert loaded(tmp_path / "b.glb").bounds.mean() == pytest.approx(1000.0, abs=1.0)


@pytest.mark.slow
def test_crumbs_are_dropped_and_what_is_enclosed_is_filled(tmp_path):
    ball = covered("sphere")
    crumb = ball.each(lambda value: value[:1].clone())
    crumb.means[:] = torch.tensor([1.3, 0.0, 0.0])
    crumb.scales[:] = math.log(0.08)
    both = Gaussians(**{name: torch.cat([value, crumb.tensors()[name]]) for name, value in ball.tensors().items()})
    assert write_mesh(both, tmp_path / "a.glb", PLAIN).parts == 1
    assert write_mesh(both, tmp_path / "a.glb", replace(PLAIN, smallest=0.0)).parts == 2


@pytest.mark.slow
@pytest.mark.parametrize("settings", [SMALL, PLAIN], ids=["texture", "vertices"])
@pytest.mark.parametrize("name", ["a.glb", "a.obj"])
def test_colours_come_back_through_an_independent_reader(tmp_path, torus, name, settings):
    write_mesh(torus, tmp_path / name, settings, "world")
    (part,) = read_mesh(tmp_path / name)
    points = sample_triangles(part.corners, 4000, torch.Generator().manual_seed(0))
    places, colours = points.of(part.corners), part.paint(points)
    for colour, side in ((RED, places[:, 1] > 0.1), (BLUE, places[:, 1] < -0.1)):
        error = (colours[side] - torch.tensor(colour, dtype=torch.float64)).abs()
        assert error.mean() < 0.02 and error.quantile(0.99) < 0.06


@pytest.mark.slow
def test_a_file_is_a_start_for_a_run(tmp_path, torus):
    for name in ("a.glb", "a.obj"):
        write_mesh(torus, tmp_path / name, SMALL)
        cloud = Mesh(path=tmp_path / name, count=500).cloud("", torch.Generator().manual_seed(0), "cpu")
        left = cloud.points[:, 1] > 0.1
        assert (cloud.colors[left, 0] > 0.6).float().mean() > 0.95  # red: up and front are where they were
        assert cloud.points[:, 2].abs().max() < 0.6 * cloud.points[:, :2].abs().max()


@pytest.mark.slow
def test_the_glb_is_unlit_and_its_picture_as_large_as_asked(tmp_path, torus):
    write_mesh(torus, tmp_path / "a.glb", SMALL)
    tree = trimesh.load(tmp_path / "a.glb").geometry.popitem()[1].visual.material
    assert tree.baseColorTexture.size == (128, 128)
    for settings in (SMALL, PLAIN):
        write_mesh(torus, tmp_path / "a.glb", settings)
        assert b'"KHR_materials_unlit":{}' in (tmp_path / "a.glb").read_bytes().replace(b" ", b"")


@pytest.mark.slow
def test_an_obj_has_its_companions_and_a_failing_one_leaves_nothing(tmp_path, torus, monkeypatch):
    target = tmp_path / "a.obj"
    write_mesh(torus, target, SMALL)
    beside = companions(target, SMALL)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a.obj", *(p.name for p in beside)])
    assert companions(target, PLAIN) == companions(tmp_path / "a.glb", SMALL) == ()
    for path in tmp_path.iterdir():
        path.unlink()
    complete = writing.encoded

    def unwritable(model, path):
        files = complete(model, path)
        return {name: data if name.suffix != ".png" else None for name, data in files.items()}

    monkeypatch.setattr(writing, "encoded", unwritable)
    with pytest.raises(TypeError):
        write_mesh(torus, target, SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("settings", [SMALL, PLAIN], ids=["texture", "vertices"])
@pytest.mark.parametrize("name", ["a.glb", "a.obj"])
def test_the_same_scene_gives_the_same_bytes(tmp_path, torus, name, settings):
    found = []
    for folder in (tmp_path / "one", tmp_path / "other"):
        write_mesh(torus, folder / name, settings)
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1] and len(found[0]) == 1 + len(companions(name, settings))


@pytest.mark.slow
def test_an_obj_shows_its_texture_as_it_is_whatever_its_name(tmp_path, torus):
    for name, plain in (("a chair #2.obj", "a-chair-2"), ("-#.obj", "mesh"), ("Stuhl_2.b.obj", "Stuhl_2.b")):
        write_mesh(torus, tmp_path / name, SMALL)
        assert companions(tmp_path / name, SMALL) == (tmp_path / f"{plain}.mtl", tmp_path / f"{plain}.png")
        assert f"\nmtllib {plain}.mtl\n" in (tmp_path / name).read_text()
        told = dict(line.split(" ", 1) for line in (tmp_path / f"{plain}.mtl").read_text().splitlines() if " " in line)
        assert (told["newmtl"], told["map_Kd"], told["illum"]) == (plain, f"{plain}.png", "0")
        colours = {key: [float(value) for value in told[key].split()] for key in ("Ka", "Kd", "Ks")}
        assert colours == {"Ka": [1, 1, 1], "Kd": [1, 1, 1], "Ks": [0, 0, 0]}
        assert trimesh.load_mesh(tmp_path / name).visual.material.image.size == (128, 128)


@pytest.mark.slow
@pytest.mark.parametrize("side", [512, 128])
def test_the_charts_fill_the_texture_and_keep_their_distance(torus, side):
    scene, ball = centred(torus)
    shape = surface(scene, photograph(scene, 120), SMALL, ball)
    atlas = unfolded(shape, side)
    assert torch.equal(shape.faces, atlas.origin[atlas.faces])
    assert atlas.uv.min() >= 0 and atlas.uv.max() <= 1 and atlas.uv.max() > 0.85
    # no chart is stretched, as it is where a larger atlas is squeezed into the picture
    flat, whole = atlas.uv[atlas.faces] * side, shape.vertices[shape.faces].double()
    (a, b, c), (p, q, r) = flat.unbind(dim=1), whole.unbind(dim=1)
    scales = torch.linalg.det(torch.stack([b - a, c - a], 1)).abs() / torch.linalg.cross(q - p, r - p).norm(dim=1)
    low, high = scales.sqrt().quantile(torch.tensor([0.1, 0.9], dtype=torch.float64))
    assert high < 1.3 * low
    found = texels(atlas, side)
    starts, ends = atlas.faces.flatten(), atlas.faces.roll(1, dims=1).flatten()
    count, charts = connected_components(coo_array((np.ones(len(ends)), (starts, ends)), [len(atlas.uv)] * 2))
    picture = np.full((side, side), -1)
    picture[found.rows, found.columns] = charts[atlas.faces[found.places.faces, 0]]
    assert count > 5
    for chart in range(count):
        others = (picture >= 0) & (picture != chart)
        assert distance_transform_edt(picture != chart)[others].min() >= GAP + 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "floater",
    [
        {"means": torch.tensor([30.0, 0.0, 0.0])},
        {"means": torch.tensor([3e38, -3e38, 0.0]), "opacities": torch.tensor(4.0)},
        {"scales": torch.tensor(100.0)},
    ],
    ids=["far", "endless", "wide"],
)
def test_a_floater_is_left_outside(tmp_path, torus, floater):
    one = {name: value[:1].clone() for name, value in torus.tensors().items()} | {"opacities": torch.full((1,), -2.5)}
    for name, value in floater.items():
        one[name][:] = value
    both = Gaussians(**{name: torch.cat([value, one[name]]) for name, value in torus.tensors().items()})
    for name, scene in (("a.glb", torus), ("b.glb", both)):
        write_mesh(scene, tmp_path / name, PLAIN)
    assert (tmp_path / "a.glb").read_bytes() == (tmp_path / "b.glb").read_bytes()


@pytest.mark.slow
def test_two_things_far_apart_are_both_meshed(tmp_path, torus):
    there = replace(torus, means=torus.means + torch.tensor([10.0, 0.0, 0.0]))
    both = Gaussians(**{name: torch.cat([value, there.tensors()[name]]) for name, value in torus.tensors().items()})
    assert write_mesh(both, tmp_path / "a.glb", replace(PLAIN, resolution=200)).parts == 2


@pytest.mark.slow
def test_what_cannot_be_meshed_is_one_clear_error_before_any_work(tmp_path, torus, monkeypatch):
    with pytest.raises(ConfigError, match=r"'a\.stl' names no format of a mesh.*\.glb, \.obj"):
        write_mesh(torus, "a.stl", SMALL)
    with pytest.raises(OutputError, match=r"none of the 2500 Gaussians has an opacity above 0\.05"):
        write_mesh(replace(torus, opacities=torus.opacities - 20.0), tmp_path / "a.glb", SMALL)
    faint = replace(torus, opacities=torch.full_like(torus.opacities, -2.5))
    one = faint.each(lambda value: value[:1])
    with pytest.raises(OutputError, match=r"in 0\.2 x 0\.2 x 0\.2 with .* lower meshing\.level, or raise meshing\.res"):
        write_mesh(one, tmp_path / "a.glb", SMALL)
    for name, value in (("scales", 100.0), ("scales", -100.0), ("means", float("inf"))):
        endless = Gaussians(**{**one.tensors(), name: torch.full((1, 3), value)})
        with pytest.raises(OutputError, match="the visible Gaussians have no finite extent"):
            write_mesh(endless, tmp_path / "a.glb", SMALL)
    with pytest.raises(OutputError, match=r"a texture of 64 x 64 pixels is too small .* meshing\.texture 256, or none"):
        write_mesh(torus, tmp_path / "a.glb", replace(SMALL, texture=64))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotInstalled, match=r"writing a mesh needs scikit-image and xatlas"):
        write_mesh(torus, tmp_path / "a.glb", SMALL)
    assert list(tmp_path.iterdir()) == []
