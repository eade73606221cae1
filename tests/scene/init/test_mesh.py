"""A start from a mesh, of files that trimesh writes and of some written here by hand.

The object is a cube whose six sides have six colours, known in our axes: front (+x) red, back cyan, left (+y) green,
right magenta, top (+z) blue, bottom yellow.
"""

import base64
import json
import struct

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from gsdistill.core.errors import BadFile
from gsdistill.core.structs import SH_C0
from gsdistill.scene.init.mesh import Mesh
from gsdistill.scene.mesh import read_mesh
from gsdistill.scene.surface import to_srgb

SIDES = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
COLORS = np.array([[1, 0, 0], [0, 1, 1], [0, 1, 0], [1, 0, 1], [0, 0, 1], [1, 1, 0]])
BYTES = np.concatenate([255 * COLORS, np.full((6, 1), 255)], axis=1).astype(np.uint8)


def cloud(path, seed=0, **settings):
    return Mesh(path=path, **settings).cloud("", torch.Generator().manual_seed(seed), "cpu")


def side_of(points):
    """The number of the cube's side that each point lies on."""
    return (np.asarray(points) @ SIDES.T).argmax(axis=1)


def cube(y_up):
    """A cube of 24 vertices and 12 triangles, and the side of each triangle, in a file's axes."""
    mesh = trimesh.creation.box()
    mesh.unmerge_vertices()
    sides = side_of(mesh.triangles_center)
    if y_up:
        mesh.vertices = mesh.vertices[:, [1, 2, 0]]  # ours is (z, x, y) of the file
    return mesh, sides


def strip():
    """A picture of the six colours side by side."""
    return Image.fromarray(BYTES[None, :, :3].repeat(3, axis=0).repeat(5, axis=1))


def coloured_by_faces(path):
    mesh, sides = cube(y_up=False)
    mesh.visual.face_colors = BYTES[sides]
    mesh.export(path)


def coloured_by_vertices(path):
    mesh, sides = cube(path.suffix in (".glb", ".gltf", ".obj"))
    mesh.visual.vertex_colors = BYTES[sides.repeat(3)]
    mesh.export(path)


def textured(path):
    mesh, sides = cube(path.suffix in (".glb", ".gltf", ".obj"))
    uv = np.stack([(sides.repeat(3) + 0.5) / 6, np.full(36, 0.5)], axis=1)
    simple = path.suffix == ".obj"
    material = SimpleMaterial(image=strip()) if simple else PBRMaterial(baseColorTexture=strip())
    mesh.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    mesh.export(path)


def coloured_by_materials(path):
    mesh, sides = cube(y_up=True)
    scene = trimesh.Scene()
    for side in range(6):
        part = mesh.submesh([np.flatnonzero(sides == side)], append=True)
        color = [*COLORS[side].tolist(), 1.0]
        physical = path.suffix == ".glb"
        material = PBRMaterial(baseColorFactor=color) if physical else SimpleMaterial(diffuse=color, name=f"m{side}")
        part.visual = trimesh.visual.TextureVisuals(material=material, uv=np.zeros((len(part.vertices), 2)))
        scene.add_geometry(part)
    scene.export(path)


@pytest.mark.parametrize(
    ("write", "suffix"),
    [
        (coloured_by_faces, ".ply"),
        (coloured_by_vertices, ".ply"),
        (coloured_by_vertices, ".obj"),
        (coloured_by_vertices, ".glb"),
        (textured, ".glb"),
        (textured, ".gltf"),
        (textured, ".obj"),
        (coloured_by_materials, ".glb"),
        (coloured_by_materials, ".obj"),
    ],
)
def test_every_side_has_its_colour_and_faces_where_it_should(tmp_path, write, suffix):
    path = tmp_path / f"cube{suffix}"
    write(path)
    made = cloud(path, count=600)
    assert np.allclose(made.points.abs().amax(dim=1), 0.5, atol=1e-6)  # on the cube's surface
    sides = side_of(made.points)
    assert np.array_equal(np.unique(sides), np.arange(6))
    assert np.allclose(made.colors, COLORS[sides], atol=1e-6)


@pytest.mark.parametrize("suffix", [".stl", ".off", ".ply", ".glb", ".obj"])
def test_a_mesh_without_colours_is_grey(tmp_path, suffix):
    trimesh.creation.icosphere(2).export(tmp_path / f"a{suffix}")
    made = cloud(tmp_path / f"a{suffix}", count=400)
    assert torch.equal(made.colors, torch.full((400, 3), 0.5))
    radii = 2 * made.points.double().norm(dim=1)  # the widest side of the sphere is one
    assert radii.max() < 1.01 and radii.min() > 0.95


@pytest.mark.parametrize(
    ("suffix", "auto"), [(".glb", "y"), (".obj", "y"), (".ply", "z"), (".stl", "z"), (".off", "z")]
)
def test_up_can_be_told(tmp_path, suffix, auto):
    """A cone with its tip at the file's +z, and a foot towards its +x."""
    cone, foot = trimesh.creation.cone(0.2, 1.0), trimesh.creation.box((0.5, 0.1, 0.1))
    foot.apply_translation([0.25, 0, 0])
    path = tmp_path / f"cone{suffix}"
    trimesh.util.concatenate([cone, foot]).export(path)
    z_up, y_up = cloud(path, up="z").points, cloud(path, up="y").points
    assert torch.equal(y_up, z_up[:, [2, 0, 1]])
    assert torch.equal(cloud(path).points, y_up if auto == "y" else z_up)
    tip = z_up[z_up[:, 2].argmax()]
    assert tip[2] == pytest.approx(0.5, abs=0.05) and z_up[z_up[:, 0].argmax(), 2] < -0.3


def test_azimuth_turns_the_object_about_the_vertical(tmp_path):
    coloured_by_vertices(tmp_path / "cube.glb")
    made = cloud(tmp_path / "cube.glb", azimuth=90)
    left = made.points[:, 1] > 0.4999  # the front looks to +y now
    assert np.allclose(made.colors[left & (made.points[:, [0, 2]].abs() < 0.49).all(dim=1)], COLORS[0], atol=1e-6)


def placed(path):
    """A unit cube at the origin, and one of side 3 turned and moved by two nodes; returns the true eight corners."""
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.creation.box(), geom_name="small", node_name="small")
    outer = trimesh.transformations.translation_matrix([10, 0, 0])
    inner = trimesh.transformations.rotation_matrix(np.pi / 4, [0, 0, 1]) @ np.diag([3.0, 3.0, 3.0, 1.0])
    scene.graph.update(frame_to="outer", matrix=outer)
    scene.add_geometry(
        trimesh.creation.box(), geom_name="big", node_name="big", parent_node_name="outer", transform=inner
    )
    scene.export(path)
    return trimesh.creation.box().vertices @ (outer @ inner)[:3, :3].T + (outer @ inner)[:3, 3]


def test_nodes_place_their_geometry(tmp_path):
    true = placed(tmp_path / "two.glb")
    parts = read_mesh(tmp_path / "two.glb")
    found = max(parts, key=lambda part: part.corners.max()).corners.reshape(-1, 3).numpy()
    assert len(parts) == 2 and np.allclose(
        np.unique(found.round(5), axis=0), np.unique(true.round(5), axis=0), atol=1e-5
    )


def test_points_are_shared_by_area_over_all_parts(tmp_path):
    placed(tmp_path / "two.glb")
    made = cloud(tmp_path / "two.glb", count=2000)
    # file x becomes our y; the small cube, a ninth of the big one's area, is the low end
    small = made.points[:, 1] < made.points[:, 1].min() + 0.2 * (made.points[:, 1].max() - made.points[:, 1].min())
    assert int(small.sum()) == pytest.approx(200, abs=3)


def test_points_are_even_over_a_sphere(tmp_path):
    """Though its triangles are not: a sphere of latitudes and longitudes, eighths of equal area."""
    trimesh.creation.uv_sphere(count=[64, 64]).export(tmp_path / "a.ply")
    made = cloud(tmp_path / "a.ply", count=8000)
    height = (made.points[:, 2] / made.points.norm(dim=1) + 1) / 2
    counts = torch.histc(height, 8, 0, 1)
    assert ((counts - 1000) ** 2 / 1000).sum() < 18.5  # chi square, 7 degrees of freedom, 1 %


def test_the_generator_decides(tmp_path):
    coloured_by_vertices(tmp_path / "cube.glb")
    first, second, other = (cloud(tmp_path / "cube.glb", seed) for seed in (0, 0, 1))
    assert torch.equal(first.points, second.points) and torch.equal(first.colors, second.colors)
    assert not torch.equal(first.points, other.points)


def test_gaussians_of_a_mesh_fill_the_ball(tmp_path):
    coloured_by_vertices(tmp_path / "cube.ply")
    scene = Mesh(path=tmp_path / "cube.ply", count=500, radius=0.8).create("", torch.Generator().manual_seed(0))
    assert len(scene) == 500 and scene.means.norm(dim=1).max() == pytest.approx(0.8)
    spacing = (6 * (1.6 / 3**0.5) ** 2 / 500) ** 0.5  # of 500 points on six squares
    assert 0.4 * spacing < scene.scales.exp().mean() < 1.2 * spacing
    inside = scene.means.abs().topk(2, dim=1).values[:, 1] < 0.4  # away from the edges
    expected = COLORS[side_of(scene.means[inside])]
    assert np.allclose(0.5 + SH_C0 * scene.sh[inside, 0], expected, atol=1e-6)


def test_a_mesh_far_from_the_origin_keeps_its_shape(tmp_path):
    mesh = trimesh.creation.box()
    mesh.vertices += 1e7  # in float32 the cube would be one point
    mesh.export(tmp_path / "far.off")
    assert np.allclose(cloud(tmp_path / "far.off").points.abs().amax(dim=1), 0.5, atol=1e-6)


# --- colours by the letter of the formats


def gltf(path, attributes, material=None, images=()):
    """Write one triangle as glTF 2.0: attributes as arrays, and a material."""
    data, views, accessors = b"", [], []
    kinds = {np.dtype("f4"): 5126, np.dtype("u1"): 5121, np.dtype("u2"): 5123}
    for array in attributes.values():
        raw = array.tobytes() + bytes(-array.nbytes % 4)
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": len(raw)})
        accessors.append({"bufferView": len(views) - 1, "componentType": kinds[array.dtype], "count": len(array),
                          "type": f"VEC{array.shape[1]}", "normalized": array.dtype.kind == "u"})  # fmt: skip
        data += raw
    primitive = {"attributes": {name: i for i, name in enumerate(attributes)}}
    tree = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive | ({"material": 0} if material else {})]}],
        "buffers": [{"uri": f"data:application/octet-stream;base64,{base64.b64encode(data).decode()}",
                     "byteLength": len(data)}],
        "bufferViews": views, "accessors": accessors,
    }  # fmt: skip
    if material:
        tree["materials"] = [{"pbrMetallicRoughness": material}]
    if images:
        tree |= {"images": [{"uri": uri} for uri in images], "textures": [{"source": 0}]}
    path.write_text(json.dumps(tree))


TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "f4")
HALF = float(to_srgb(torch.tensor(0.5)))  # what 0.5 of linear light looks like: 0.735


def test_gltf_multiplies_texture_factor_and_vertex_colour_in_linear_light(tmp_path):
    Image.new("RGB", (2, 2), (188, 188, 255)).save(tmp_path / "my tex.png")  # 188 is 0.5029 of linear light
    color = np.tile(np.array([[0.5, 1.0, 0.25]], "f4"), (3, 1))
    uv = np.full((3, 2), 0.5, "f4")
    material = {"baseColorFactor": [1.0, 0.2, 0.5, 1.0], "baseColorTexture": {"index": 0}}
    gltf(tmp_path / "a.gltf", {"POSITION": TRIANGLE, "TEXCOORD_0": uv, "COLOR_0": color}, material, ["my%20tex.png"])
    texel = ((188 / 255 + 0.055) / 1.055) ** 2.4
    expected = to_srgb(torch.tensor([texel * 0.5, texel * 0.2, 0.5 * 0.25]))
    assert torch.allclose(cloud(tmp_path / "a.gltf").colors, expected.expand(4096, 3), atol=0.006)


@pytest.mark.parametrize(("kind", "half"), [("f4", 0.5), ("u1", 128), ("u2", 32768)])
def test_gltf_vertex_colours_are_linear_light_of_any_type(tmp_path, kind, half):
    color = np.full((3, 3), half, kind)
    gltf(tmp_path / "a.gltf", {"POSITION": TRIANGLE, "COLOR_0": color})
    gltf(tmp_path / "b.gltf", {"POSITION": TRIANGLE, "COLOR_0": color}, {"metallicFactor": 0.0})
    for name in ("a.gltf", "b.gltf"):
        assert torch.allclose(cloud(tmp_path / name).colors, torch.tensor(HALF), atol=0.003)


def test_gltf_textures_stand_upright_and_repeat(tmp_path):
    """The four corners of a picture at the four corners of a square; glTF's v runs down."""
    picture = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    Image.fromarray(picture).save(tmp_path / "t.png")
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 0], [0, 1, 0]], "f4")
    for shift in (0.0, 3.0, -2.0):
        uv = np.stack([square[:, 0], 1 - square[:, 1]], axis=1) + np.float32(shift)
        gltf(tmp_path / "a.gltf", {"POSITION": square, "TEXCOORD_0": uv.astype("f4")},
             {"baseColorTexture": {"index": 0}}, ["t.png"])  # fmt: skip
        made = cloud(tmp_path / "a.gltf", count=400)  # file (x, y, z) is our (z, x, y): x to the left, y up
        expected = picture[(made.points[:, 2] < 0).long(), (made.points[:, 1] > 0).long()] / 255
        near = (made.points[:, 1:].abs() < 1e-3).any(dim=1).numpy()  # the seam between texels
        assert np.allclose(made.colors[~near], expected[~near], atol=1e-6)


def test_an_obj_says_its_colours_as_they_are_seen(tmp_path):
    """Kd where there is no picture; a picture alone where there is one; v runs up."""
    picture = np.array([[[255, 0, 0]], [[0, 0, 128]]], np.uint8)
    Image.fromarray(picture).save(tmp_path / "t.png")
    (tmp_path / "m.mtl").write_text("newmtl plain\nKd 0.2 0.4 0.6\nnewmtl picture\nKd 0.1 0.1 0.1\nmap_Kd t.png\n")
    (tmp_path / "a.obj").write_text(
        "mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 5\nv 1 0 5\nv 0 1 5\nvt 0.5 0.75\nvt 0.5 0.25\n"
        "usemtl plain\nf 1 2 3\nusemtl picture\nf 4/1 5/1 6/1\nf 4/2 6/2 5/2\n"
    )
    made = cloud(tmp_path / "a.obj", count=300)
    front = made.points[:, 0] > 0  # the file's z
    assert torch.allclose(made.colors[~front], torch.tensor([0.2, 0.4, 0.6]))
    assert set(map(tuple, (255 * made.colors[front]).round().tolist())) == {(255, 0, 0), (0, 0, 128)}


@pytest.mark.parametrize(("kind", "value"), [("uchar", 128), ("ushort", 128 * 257), ("float", 128 / 255)])
@pytest.mark.parametrize("of", ["vertex", "face"])
def test_a_ply_says_its_colours_as_they_are_seen(tmp_path, kind, value, of):
    colors, color = [f"property {kind} {name}" for name in ("red", "green", "blue")], f" {value} 0 {value}"
    header = ["ply", "format ascii 1.0", "element vertex 3", *(f"property float {name}" for name in "xyz")]
    header += [*(colors if of == "vertex" else []), "element face 1", "property list uchar int vertex_indices"]
    header += [*(colors if of == "face" else []), "end_header"]
    rows = [row + (color if of == "vertex" else "") for row in ("0 0 0", "1 0 0", "0 1 0")]
    (tmp_path / "a.ply").write_text("\n".join([*header, *rows, "3 0 1 2" + (color if of == "face" else "")]) + "\n")
    assert torch.allclose(cloud(tmp_path / "a.ply").colors, torch.tensor([128 / 255, 0, 128 / 255]), atol=1e-6)


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r", " \n"])
@pytest.mark.parametrize(
    "remark", ["comment © Müller".encode("latin-1"), "obj_info 路径 D:/椅子".encode(), b"", b"comment"]
)
def test_remarks_in_the_header_of_a_ply_are_of_no_account_but_for_textures(tmp_path, ends, remark):
    Image.new("RGB", (2, 2), (255, 0, 128)).save(tmp_path / "Größe.png")
    header = ["ply", "REMARK", "format ascii 1.0", "REMARK", "comment TextureFile Größe.png", "element vertex 3"]
    header += [f"property float {name}" for name in ("x", "y", "z", "s", "t")]
    header += ["REMARK", "element face 1", "property list uchar int vertex_indices", "end_header", ""]
    lines = ends.join(header).encode().replace(b"REMARK", remark)
    (tmp_path / "a.ply").write_bytes(b"\xef\xbb\xbf" + lines + b"0 0 0 0 0\n1 0 0 1 0\n0 1 0 0 1\n3 0 1 2\n")
    assert torch.allclose(cloud(tmp_path / "a.ply").colors, torch.tensor([1.0, 0.0, 128 / 255]), atol=1e-6)


def test_vertex_colours_run_smoothly_over_a_triangle(tmp_path):
    header = ["ply", "format ascii 1.0", "element vertex 3", *(f"property float {name}" for name in "xyz")]
    header += [f"property uchar {name}" for name in ("red", "green", "blue")]
    header += ["element face 1", "property list uchar int vertex_indices", "end_header"]
    rows = ["0 0 0 255 0 0", "1 0 0 0 255 0", "0 1 0 0 0 255", "3 0 1 2"]
    (tmp_path / "a.ply").write_text("\n".join([*header, *rows]) + "\n")
    made = cloud(tmp_path / "a.ply")
    x, y = made.points[:, 0] + 0.5, made.points[:, 1] + 0.5
    assert torch.allclose(made.colors, torch.stack([1 - x - y, x, y], dim=1), atol=1e-5)


# --- what cannot be read


def ascii_off(path, vertices, faces=((0, 1, 2),)):
    rows = [" ".join(map(str, row)) for row in vertices] + [f"3 {' '.join(map(str, face))}" for face in faces]
    path.write_text("\n".join(["OFF", f"{len(vertices)} {len(faces)} 0", *rows]) + "\n")
    return path


def stl(path, vertices):
    record = struct.pack("<12fH", 0, 0, 0, *np.ravel(vertices), 0)
    path.write_bytes(bytes(80) + struct.pack("<I", 1) + record)
    return path


def refused(path):
    with pytest.raises(BadFile) as caught:
        cloud(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < 500
    return message


def test_a_missing_file_and_a_folder(tmp_path):
    assert "cannot be read: no such file" in refused(tmp_path / "none.glb")
    (tmp_path / "folder.obj").mkdir()
    assert "cannot be read: it is a folder" in refused(tmp_path / "folder.obj")


def test_an_unknown_suffix(tmp_path):
    (tmp_path / "a.fbx").write_bytes(b"Kaydara FBX Binary")
    assert "a mesh is one of .glb .gltf .obj .ply .stl .off, not '.fbx'" in refused(tmp_path / "a.fbx")
    assert "Did you mean '.gltf'?" in refused(tmp_path / "a.gltff")


@pytest.mark.parametrize("suffix", [".glb", ".gltf", ".obj", ".ply", ".stl", ".off"])
@pytest.mark.parametrize("content", [b"", b"this is no mesh\n", bytes(range(256)) * 4])
def test_a_file_that_is_no_mesh(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    message = refused(path)
    assert f"not a sound {suffix} file" in message or "holds no triangles" in message


@pytest.mark.parametrize("name", ["KHR_draco_mesh_compression", "EXT_meshopt_compression"])
def test_compressed_triangles(tmp_path, name):
    gltf(tmp_path / "a.gltf", {"POSITION": TRIANGLE})
    tree = json.loads((tmp_path / "a.gltf").read_text())
    (tmp_path / "a.gltf").write_text(json.dumps(tree | {"extensionsUsed": [name], "extensionsRequired": [name]}))
    assert f"its triangles are compressed ({name}), which is not read" in refused(tmp_path / "a.gltf")


def test_half_a_file(tmp_path):
    for suffix in (".glb", ".ply", ".stl"):
        path = tmp_path / f"half{suffix}"
        trimesh.creation.icosphere(2).export(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        message = refused(path)
        assert f"not a sound {suffix} file" in message or "holds no triangles" in message


def test_a_mesh_without_triangles(tmp_path):
    trimesh.PointCloud(np.eye(5, 3)).export(tmp_path / "points.ply")
    assert "holds no triangles; for a point cloud or a splat take --init ply" in refused(tmp_path / "points.ply")
    (tmp_path / "points.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    assert refused(tmp_path / "points.obj").endswith("holds no triangles")


@pytest.mark.parametrize("vertices", [np.ones((3, 3)), np.arange(9.0).reshape(3, 3)])
def test_a_mesh_without_area(tmp_path, vertices):
    assert "its 1 triangles have no area" in refused(ascii_off(tmp_path / "a.off", vertices))


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_vertices_that_are_not_finite(tmp_path, value):
    rows = [[0, 0, 0], [1, 0, value], [0, 1, 0]]
    assert "1 of 3 vertices are NaN or infinite" in refused(ascii_off(tmp_path / "a.off", rows))
    assert "1 of 3 vertices are NaN or infinite" in refused(stl(tmp_path / "a.stl", np.array(rows, float)))


def test_triangles_of_vertices_that_are_not_there(tmp_path):
    refused(ascii_off(tmp_path / "a.off", np.eye(3), [(0, 1, 7)]))
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n")
    refused(tmp_path / "a.obj")


def test_files_that_a_mesh_refers_to(tmp_path):
    path = tmp_path / "a.obj"
    path.write_text("mtllib gone.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl m\nf 1/1 2/1 3/1\n")
    assert "refers to 'gone.mtl', which is not there" in refused(path)
    (tmp_path / "gone.mtl").write_text("newmtl m\nmap_Kd gone.png\n")
    assert "refers to 'gone.png', which is not there" in refused(path)
    (tmp_path / "gone.png").write_bytes(b"no picture")
    assert "refers to 'gone.png', which is no picture" in refused(path)
    Image.new("RGB", (64, 64)).save(tmp_path / "gone.png")
    whole = (tmp_path / "gone.png").read_bytes()
    (tmp_path / "gone.png").write_bytes(whole[: len(whole) // 2])
    assert "a texture cannot be read" in refused(path)
    (tmp_path / "gone.png").write_bytes(whole)
    assert len(cloud(path)) == 4096


def test_a_reference_to_the_network_is_a_missing_file(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket", None)
    uv = np.zeros((3, 2), "f4")
    gltf(tmp_path / "a.gltf", {"POSITION": TRIANGLE, "TEXCOORD_0": uv}, {"baseColorTexture": {"index": 0}},
         ["https://example.com/t.png"])  # fmt: skip
    assert "refers to 'https://example.com/t.png', which is not there" in refused(tmp_path / "a.gltf")
