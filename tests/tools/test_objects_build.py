"""The meshes of everyday objects are built as their page says: convention, colours, few triangles, planes, sources."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
from PIL import Image

from gsdistill.worlds.objects.catalogue import models
from gsdistill.worlds.objects.meshes import folder, mesh_of

TOOLS = str(Path(__file__).parents[2] / "tools" / "objects")
NAMES = ("build", "compare", "coplanar", "fbx", "gather", "licences", "load", "paint", "shape", "table")
DEBIAN = "debian/sweethome3d-furniture"


@pytest.fixture(scope="module")
def tool() -> Iterator[SimpleNamespace]:
    sys.path.insert(0, TOOLS)
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    sys.path.remove(TOOLS)
    for name in NAMES:
        del sys.modules[name]


def triangles(mesh: trimesh.Trimesh) -> np.ndarray:
    return np.asarray(mesh.triangles, np.float64)


def source(tool, path: str = "a.glb", sha256: str = "", **more):
    repository = tool.table.Repository("owner/name", "CC0-1.0", {}, commit="0" * 40)
    return tool.table.Source("thing_01", repository, path, sha256, noun="thing", author="nobody", **more)


# The convention


def test_up_and_front_of_a_file_become_z_and_x_and_turns_are_anticlockwise(tool):
    arrow = np.array([[[0, 0, 1.0], [0, 1.0, 0], [1.0, 0, 0]]])  # front, up and left of the file
    assert np.allclose(tool.shape.placed(arrow, 0), [[[1, 0, 0], [0, 0, 1], [0, 1, 0]]])
    assert np.allclose(tool.shape.placed(arrow, 90), [[[0, 1, 0], [0, 0, 1], [-1, 0, 0]]])
    assert np.allclose(tool.shape.placed(arrow, 0, roll=90), [[[0, 0, -1], [1, 0, 0], [0, 1, 0]]])


def test_a_mesh_is_centred_and_its_farthest_vertex_is_at_nine_tenths(tool):
    corners = triangles(trimesh.creation.box((1, 2, 4))) + np.array([5, 6, 7])
    vertices, faces, _ = tool.shape.centred(tool.shape.welded(corners, np.ones((12, 3))))
    assert vertices.shape == (8, 3) and faces.shape == (12, 3)
    assert np.allclose(vertices.min(0), -vertices.max(0))
    assert np.allclose(np.linalg.norm(vertices, axis=1), 0.9)
    assert np.allclose(np.ptp(vertices, 0) / np.ptp(vertices, 0).min(), [1, 2, 4])


def test_triangles_without_an_area_or_a_place_are_dropped(tool):
    corners = triangles(trimesh.creation.box((1, 1, 1)))
    thin, lost = corners[:1].copy(), corners[:1].copy()
    thin[0, 2], lost[0, 0, 0] = thin[0, 1], np.nan
    colors = np.arange(14)[:, None] * np.ones(3)
    _, faces, kept = tool.shape.welded(np.concatenate([thin, corners, lost]), colors)
    assert len(faces) == 12 and kept[:, 0].tolist() == list(range(1, 13))


# Few triangles


def test_few_triangles_stay_as_they_are(tool):
    ball = trimesh.creation.icosphere(4)
    mesh = tool.shape.welded(triangles(ball), np.ones((5120, 3)))
    assert tool.shape.decimated(mesh) is mesh


def test_many_triangles_become_few_of_the_same_shape_and_colours(tool):
    corners = triangles(trimesh.creation.icosphere(5))
    colors = np.where(corners.mean(1)[:, 2:] > 0, [1.0, 0, 0], [0, 0, 1.0])
    vertices, faces, shades = tool.shape.decimated(tool.shape.welded(corners, colors))
    assert 4000 < len(faces) <= tool.shape.MOST
    assert np.allclose(np.linalg.norm(vertices, axis=1), 1, atol=0.01)
    heights = vertices[faces].mean(1)[:, 2]
    assert (shades[heights > 0.05] == [1, 0, 0]).all() and (shades[heights < -0.05] == [0, 0, 1]).all()


def test_many_loose_parts_become_few_triangles(tool):
    box = triangles(trimesh.creation.box((0.01, 0.01, 0.01)))
    places = np.stack(np.meshgrid(*3 * [np.linspace(0, 1, 12)]), -1).reshape(-1, 1, 1, 3)
    corners = (box + places).reshape(-1, 3, 3)
    _, faces, colors = tool.shape.decimated(tool.shape.welded(corners, np.ones((len(corners), 3))))
    assert len(corners) == 20736 and 0 < len(faces) <= tool.shape.MOST and len(colors) == len(faces)


# Colours


def test_linear_colours_become_srgb_and_back(tool):
    values = np.linspace(0, 1, 101)
    assert np.allclose(tool.paint.linear(tool.paint.srgb(values)), values)
    assert np.isclose(tool.paint.srgb(np.array(0.2140411)), 0.5, atol=1e-6)


def test_a_colour_is_converted_kept_or_named(tool):
    part = tool.load.Part(triangles(trimesh.creation.box()), np.full(3, 0.2140411), material="wood")

    def color(**more):
        return tool.paint.paint([part], source(tool, **more))[1][0, 0]

    assert np.isclose(color(), 0.5, atol=1e-6)
    assert np.isclose(color(raw=1), 0.2140411)
    assert np.isclose(color(raw=0.5), (0.5 + 0.2140411) / 2, atol=1e-6)
    assert np.isclose(color(gain=2), tool.paint.srgb(np.array(0.4280822)))
    assert color(materials={"wood": "#336699"}) == 0x33 / 255
    bare = tool.load.Part(part.corners, None)
    assert tool.paint.paint([bare], source(tool))[1][0, 0] == tool.paint.GREY


def test_what_cannot_be_seen_is_left_out_and_glass_shows_what_is_behind(tool):
    box = triangles(trimesh.creation.box((1, 1, 1)))
    solid = tool.load.Part(box, np.array([1.0, 0, 0]))
    glass = tool.load.Part(1.1 * box, np.ones(3), alpha=0.2)
    air = tool.load.Part(5 * box, np.ones(3), alpha=0.05)
    corners, colors = tool.paint.paint([solid, glass, air], source(tool))
    assert len(corners) == 24
    assert np.allclose(colors[12:], [1, 0.2, 0.2])


def test_a_potion_shows_its_liquid_up_to_where_it_is_filled(tool):
    box = triangles(trimesh.creation.box((1, 1, 1)))
    liquid = tool.load.Part(box * [1, 0.5, 1], np.ones(3), material="Liquid_Red")
    parts = [tool.load.Part(box * [1.1, 3, 1.1], np.ones(3), alpha=0.3, material="Glass"), liquid]
    corners, colors = tool.paint.paint(parts, source(tool, liquid="#ff0000"))
    low = corners.mean(1)[:, 1] < 0.25
    assert (colors[low][:, 1] < 0.3).all() and (colors[~low][:12, 1] > 0.8).any()


def test_dark_models_are_lifted_and_bright_ones_are_not(tool):
    dark, weights = np.full((4, 3), 0.45), np.ones(4)
    assert np.allclose(tool.paint.lifted(dark, weights), tool.paint.BRIGHT)
    black = np.full((4, 3), 0.1)
    assert np.allclose(tool.paint.linear(tool.paint.lifted(black, weights)), 2.2 * tool.paint.linear(black))
    assert tool.paint.lifted(dark + 0.3, weights)[0, 0] == 0.75


def test_a_triangle_is_split_where_its_picture_varies(tool):
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :20], pixels[:, 20:] = (255, 0, 0, 255), (0, 255, 0, 255)  # red on the left
    square = np.array([[[0, 0, 0], [1, 0, 0], [1, 1, 0]], [[0, 0, 0], [1, 1, 0], [0, 1, 0]]], np.float64)
    shown, colors = tool.paint.sampled(square, square[..., :2], Image.fromarray(pixels), 1.0, 500)
    assert 50 < len(shown) <= 500
    assert np.isclose(tool.paint.areas(shown).sum(), 1)
    left, right = shown[..., 0].max(1) < 0.3, shown[..., 0].min(1) > 0.32
    assert np.allclose(colors[left], [1, 0, 0]) and np.allclose(colors[right], [0, 1, 0])
    assert len(tool.paint.sampled(square, square[..., :2], Image.fromarray(pixels), 1.0, 2)[0]) == 2


def test_rows_of_a_picture_run_down_and_holes_are_left_out(tool):
    pixels = np.zeros((2, 1, 4), np.uint8)
    pixels[0] = 0, 0, 255, 255  # the upper half is blue, the lower one a hole
    low = np.array([[[0, 0.1], [1, 0.1], [0.5, 0.4]]])
    corners = np.concatenate([low, low + np.array([0, 0.5])])
    corners = np.concatenate([corners, np.zeros((2, 3, 1))], -1)
    shown, colors = tool.paint.sampled(corners, corners[..., :2], Image.fromarray(pixels), 1.0, 9)
    assert (shown == corners[1:]).all() and np.allclose(colors, [[0, 0, 1]])


# Planes


def quads(*heights: float, size: float = 1.0) -> np.ndarray:
    square = np.array([[[-1, -1, 0], [1, -1, 0], [1, 1, 0]], [[-1, -1, 0], [1, 1, 0], [-1, 1, 0]]], np.float64)
    return np.concatenate([size * square + [0, 0, height] for height in heights])


RED, BLUE = np.tile([1.0, 0, 0], (2, 1)), np.tile([0, 0, 1.0], (2, 1))


def test_both_sides_of_a_shell_are_moved_to_where_they_look(tool):
    corners = np.concatenate([quads(0), quads(0)[:, ::-1]])
    moved = tool.coplanar.moved_apart(corners, np.concatenate([RED, BLUE]))[..., 2] / 2
    assert np.allclose(moved[:2], tool.coplanar.STEP) and np.allclose(moved[2:], -tool.coplanar.STEP)


@pytest.mark.parametrize("first", [True, False])
def test_a_label_lies_on_its_box(tool, first):
    pieces = [(quads(0), RED), (quads(0, size=0.3), BLUE)][:: 1 if first else -1]
    corners, colors = (np.concatenate(kind) for kind in zip(*pieces, strict=True))
    moved = tool.coplanar.moved_apart(corners, colors)[..., 2] / 2
    assert np.allclose(moved[colors[:, 2] == 1], tool.coplanar.STEP) and (moved[colors[:, 0] == 1] == 0).all()


@pytest.mark.parametrize(
    ("corners", "colors"),
    [
        (np.concatenate([quads(0), quads(0)]), np.concatenate([RED, RED])),  # one colour
        (quads(0, 0.01), np.concatenate([RED, BLUE])),  # two planes
        (np.concatenate([quads(0), quads(0) + np.array([2, 0, 0])]), np.concatenate([RED, BLUE])),  # side by side
        (np.concatenate([quads(0), quads(0)[..., [2, 0, 1]]]), np.concatenate([RED, BLUE])),  # crossing
    ],
)
def test_what_does_not_flicker_stays(tool, corners, colors):
    assert tool.coplanar.moved_apart(corners, colors) is corners


# Files


@pytest.mark.parametrize("draco", [False, True])
def test_a_glb_is_built_as_the_world_reads_it(tool, tmp_path, monkeypatch, capsys, draco):
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[0, 255, 0, 255], name="green")
    box = trimesh.creation.box((1, 2, 4))
    box.visual = trimesh.visual.TextureVisuals(material=material)
    place = tmp_path / "sources" / "owner" / "name"
    place.mkdir(parents=True)
    box.export(place / "a.glb", extension_draco=draco)
    own = hashlib.sha256((place / "a.glb").read_bytes()).hexdigest()
    rows = [source(tool, sha256=own), source(tool, path="b.glb"), source(tool, sha256="0" * 64)]
    monkeypatch.setattr(tool.build, "read_table", lambda: rows)
    with pytest.raises(SystemExit) as ended:
        tool.build.main([str(tmp_path / "sources"), str(tmp_path / "out"), "--compare", str(tmp_path / "out")])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "1 models built" in said and "b.glb is not there" in said and "a.glb is not that of the table" in said
    assert "1 models in both: difference of pictures 0.0000" in said
    mesh = mesh_of(tool.compare._model("thing_01"), tmp_path / "out")
    assert np.allclose(np.ptp(mesh.vertices, 0) / np.ptp(mesh.vertices, 0).min(), [4, 1, 2], atol=1e-3)
    assert (mesh.colors == [0, 1, 0]).all() and len(mesh.faces) == 12


def test_another_picture_is_told_from_the_same(tool):
    torch = pytest.importorskip("torch")
    one, other = torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 8, 8)
    one[:, 3, :4], other[:, 3, :2] = 1, 1
    told = tool.compare.difference(one, other, "half")
    assert told.silhouette == 0.5 and told.picture == 0.125


TEXT = """; FBX 7.3.0 project file
GlobalSettings:  {
    Properties70:  {
        P: "UpAxis", "int", "Integer", "",1
    }
}
Objects:  {
    Geometry: 1, "Geometry::", "Mesh" {
        Vertices: *12 {
            a: 0,0,0,1,0,0,
1,1,0,0,1,0
        }
        PolygonVertexIndex: *4 {
            a: 0,1,2,-4
        }
        LayerElementMaterial: 0 {
            Materials: *1 {
                a: 0
            }
        }
    }
    Model: 2, "Model::square", "Mesh" {
        Properties70:  {
            P: "Lcl Translation", "Lcl Translation", "", "A",0,0,5
            P: "Lcl Rotation", "Lcl Rotation", "", "A",0,0,90
            P: "Lcl Scaling", "Lcl Scaling", "", "A",2,1,1
        }
    }
    Material: 3, "Material::wood", "" {
        Properties70:  {
            P: "DiffuseColor", "Color", "", "A",0.5,0.25,0
        }
    }
}
Connections:  {
    C: "OO",1,2
    C: "OO",2,0
    C: "OO",3,2
}
"""


def test_fbx_as_text_is_read(tool, tmp_path):
    (tmp_path / "a.fbx").write_text(TEXT)
    (surface,) = tool.fbx.read_fbx(tmp_path / "a.fbx")
    assert surface.material == "wood" and surface.color == (0.5, 0.25, 0)
    assert np.allclose(surface.corners, [[[0, 0, 5], [0, 2, 5], [-1, 2, 5]], [[0, 0, 5], [-1, 2, 5], [-1, 0, 5]]])


def binary(node) -> bytes:
    """A node of the tool's tree as a binary file has it, from offset 0; offsets are added by the caller."""

    def value(one) -> bytes:
        if isinstance(one, np.ndarray):
            data = one.tobytes()
            return {"f": b"d", "i": b"i"}[one.dtype.kind] + struct.pack("<III", one.size, 0, len(data)) + data
        if isinstance(one, str):
            return b"S" + struct.pack("<I", len(one)) + one.encode()
        return b"L" + struct.pack("<q", one) if isinstance(one, int) else b"D" + struct.pack("<d", one)

    def node_at(one, at: int) -> bytes:
        values = b"".join(map(value, one.values))
        body = values
        start = at + 13 + len(one.name)
        for child in one.children:
            body += node_at(child, start + len(body))
        if one.children:
            body += bytes(13)
        head = struct.pack("<IIIB", start + len(body), len(one.values), len(values), len(one.name))
        return head + one.name.encode() + body

    data = b"Kaydara FBX Binary  \0\x1a\0" + struct.pack("<I", 7400)
    for child in node.children:
        data += node_at(child, len(data))
    return data + bytes(13)


def test_binary_fbx_is_read_as_text_is(tool, tmp_path):
    def typed(node):  # as binary files have them: arrays of int32 for numbers of vertices and of materials
        if node.name in ("PolygonVertexIndex", "Materials"):
            node.values = [node.values[0].astype(np.int32)]
        for child in node.children:
            typed(child)
        return node

    tree = tool.fbx.Node("", (), [typed(node) for node in tool.fbx._text(TEXT)])
    (tmp_path / "a.fbx").write_text(TEXT)
    (tmp_path / "b.fbx").write_bytes(binary(tree))
    (one,), (other,) = (tool.fbx.read_fbx(tmp_path / name) for name in ("a.fbx", "b.fbx"))
    assert (one.corners == other.corners).all() and one.color == other.color and one.material == other.material


# The table


def test_the_table_has_all_models_of_the_world_with_checksums(tool):
    sources = {one.name: one for one in tool.table.read_table()}
    assert models().keys() <= sources.keys()
    for name, model in models().items():
        one = sources[name]
        assert model.source == f"{one.repository.title}: {one.path}" and model.author == one.author
    for one in sources.values():
        assert re.fullmatch("[0-9a-f]{64}", one.sha256)
        assert one.repository.package or re.fullmatch("[0-9a-f]{40}", one.repository.commit)
        assert one.repository.licence.startswith("CC0-1.0")
        assert all(re.fullmatch("[0-9a-f]{64}", checksum) for checksum in one.repository.files.values())


def test_the_licences_are_of_the_models_of_the_world(tool):
    page = tool.licences.page(models().values())
    assert tool.licences.PAGE.read_text(encoding="utf-8") == page
    assert page.count("| CC0-1.0 |") == len(models())


def test_only_what_is_not_there_is_fetched_from_a_commit(tool, tmp_path, monkeypatch):
    origin = tmp_path / "origin"
    origin.mkdir()
    git = ["git", "-C", str(origin), "-c", "user.name=a", "-c", "user.email=a@b"]
    for name in ("a[1].glb", "b.png", "c.txt"):
        (origin / name).write_text(name)
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "a"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.file://{origin}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/owner/name")
    checksum = hashlib.sha256(b"b.png").hexdigest()
    repository = tool.table.Repository("owner/name", "CC0-1.0", {"b.png": checksum}, commit=commit)
    one = tool.table.Source("a_01", repository, "a[1].glb", hashlib.sha256(b"a[1].glb").hexdigest(), "a", "b")
    assert tool.gather.lacking(one, tmp_path / "got")
    tool.gather.gather([one], tmp_path / "got")
    assert not tool.gather.lacking(one, tmp_path / "got")
    got = tmp_path / "got" / "owner" / "name"
    assert {path.name for path in got.iterdir()} == {".git", "a[1].glb", "b.png"}
    spoilt = shutil.copytree(tmp_path / "got", tmp_path / "spoilt") / "owner" / "name" / "b.png"
    spoilt.write_text("another")
    assert tool.gather.lacking(one, tmp_path / "spoilt") == "b.png is not that of the table"


# Debian's models


@pytest.fixture(scope="module")
def furniture(tool, tmp_path_factory) -> Path:
    """The folder of what one command builds of Debian's models."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("this is no Debian")
    place = tmp_path_factory.mktemp("furniture")
    sources = [one for one in tool.table.read_table() if one.repository.name == DEBIAN]
    for last in (False, True):
        try:
            tool.gather.gather(sources, place / "sources")
            break
        except (RuntimeError, OSError) as error:
            if last:
                pytest.skip(f"apt-get does not get the models: {error}")
    with pytest.raises(SystemExit) as ended:
        tool.build.main([str(place / "sources"), str(place / "out"), "--fetch", "--only", DEBIAN])
    assert ended.value.code == 0
    return place / "out"


@pytest.mark.slow
def test_debians_models_are_built(furniture):
    records = json.loads((furniture / "objects.json").read_text(encoding="utf-8"))
    assert len(records) == 147 and max(record["faces"] for record in records) <= 6000
    names = {record["id"] for record in records} & models().keys()
    assert len(names) > 30
    for name in names:
        mesh = mesh_of(models()[name], furniture)
        assert np.isclose(np.linalg.norm(mesh.vertices, axis=1).max(), 0.9, atol=1e-3)
        assert np.allclose(mesh.vertices.min(0), -mesh.vertices.max(0), atol=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(folder() is None, reason="there is no folder of meshes to compare with")
def test_debians_models_are_those_that_the_weights_learnt_from(tool, furniture):
    place = folder()
    assert place is not None
    differences = tool.compare.compare(furniture, place)
    assert len(differences) == 147
    assert np.mean([one.picture for one in differences]) < 0.01
