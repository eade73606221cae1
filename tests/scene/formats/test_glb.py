"""glTF as other programs write it: nodes that place a splat, other numbers, and an SPZ in place of attributes."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from export.decoders import KHR, glb_chunks
from export.scenes import pebble
from gsply import write_spz
from scipy.spatial.transform import Rotation

from gsdistill.core import extras
from gsdistill.core.errors import BadFile, NotInstalled
from gsdistill.core.structs import Gaussians
from gsdistill.export.compressed_ply import gsply_data
from gsdistill.export.glb import Glb
from gsdistill.scene.read import open_splat, read_splat
from gsdistill.scene.turn import frame_matrix, from_frame, to_frame, turned

STONE = pebble(30, 2)
SPZ_IN_GLTF = "KHR_gaussian_splatting_compression_spz_2"


def save(path: Path, document: dict, numbers: bytes) -> Path:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    numbers += bytes(-len(numbers) % 4)
    head = struct.pack("<4sIII4s", b"glTF", 2, 28 + len(text) + len(numbers), len(text), b"JSON")
    path.write_bytes(head + text + struct.pack("<I4s", len(numbers), b"BIN\0") + numbers)
    return path


def changed(folder: Path, change, stone: Gaussians = STONE) -> Path:
    """A file of the stone whose description went through ``change``."""
    Glb().write(stone, folder / "a.glb")
    document, numbers = glb_chunks(folder / "a.glb")
    return save(folder / "b.glb", change(document) or document, numbers)


def same(one: Gaussians, other: Gaussians, tolerance: float = 1e-5) -> bool:
    p, q = (torch.nn.functional.normalize(scene.quats.double(), dim=1) for scene in (one, other))
    fields = ("means", "scales", "opacities", "sh")
    close = all(torch.allclose(getattr(one, n), getattr(other, n), rtol=0, atol=tolerance) for n in fields)
    return close and bool(((p * q).sum(dim=1).abs() > 1 - 1e-6).all())


@pytest.mark.parametrize("as_matrix", [False, True])
def test_nodes_turn_scale_and_move_what_hangs_on_them(tmp_path, as_matrix):
    turn, other = Rotation.from_rotvec([0.3, -1.1, 0.4]), Rotation.from_rotvec([0.0, 0.7, 0.0])
    move, far = np.array([0.5, -2.0, 1.0]), np.array([0.0, 3.0, 0.0])

    def hang(document):
        inner = {"rotation": turn.as_quat().tolist(), "scale": [2.0, 2.0, 2.0], "translation": move.tolist(), "mesh": 0}
        if as_matrix:
            matrix = np.eye(4)
            matrix[:3, :3], matrix[:3, 3] = 2 * turn.as_matrix(), move
            inner = {"matrix": matrix.T.ravel().tolist(), "mesh": 0}
        outer = {"children": [1], "rotation": other.as_quat().tolist(), "translation": far.tolist()}
        document.update(nodes=[outer, inner], scenes=[{"nodes": [0]}])

    base = turned(to_frame(STONE, "y-up"), torch.from_numpy((other * turn).as_matrix()))
    means = 2 * base.means.double() + torch.from_numpy(other.apply(move) + far)
    placed = replace(base, means=means.float(), scales=base.scales + np.log(2))
    assert same(read_splat(changed(tmp_path, hang)), from_frame(placed, "y-up"))


def test_a_node_may_mirror(tmp_path):
    def mirror(document):
        document["nodes"][0]["scale"] = [-1, 1, 1]

    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    expected = from_frame(turned(to_frame(STONE, "y-up"), flip), "y-up")
    assert same(read_splat(changed(tmp_path, mirror)), expected)


def test_all_splats_of_the_scene_are_one_and_the_rest_is_passed_over(tmp_path):
    def twice(document):
        plain = {"attributes": {"POSITION": 0}, "mode": 0}
        document["meshes"].append({"primitives": [plain, document["meshes"][0]["primitives"][0]]})
        document["nodes"] = [{"mesh": 0}, {"mesh": 1, "translation": [0, 0, 9]}, {"name": "empty"}, {"mesh": 0}]
        document["scenes"] = [{"nodes": [0, 1, 2]}]

    found = read_splat(changed(tmp_path, twice))
    assert len(found) == 60
    parts = [found.each(lambda v, where=where: v[where]) for where in (slice(30, 60), slice(0, 30))]
    front = frame_matrix("y-up").T.float() @ torch.tensor([0.0, 0.0, 9.0])
    moved = sorted(parts, key=lambda part: float((part.means - STONE.means).abs().max()))
    assert same(moved[0], STONE) and same(moved[1], replace(STONE, means=STONE.means + front))


def test_without_scenes_each_node_is_shown_once_where_it_hangs(tmp_path):
    def loose(nodes):
        def change(document):
            del document["scene"], document["scenes"]
            document["nodes"] = nodes

        return changed(tmp_path, change)

    found = read_splat(loose([{"children": [1], "translation": [0, 0, 9]}, {"mesh": 0}]))
    front = frame_matrix("y-up").T.float() @ torch.tensor([0.0, 0.0, 9.0])
    assert same(found, replace(STONE, means=STONE.means + front))
    assert same(read_splat(loose([{"children": [0]}, {"mesh": 0}])), STONE)  # nothing leads to the circle
    with pytest.raises(BadFile, match="hangs in two places"):
        read_splat(loose([{"children": [1], "mesh": 0}, {"children": [0]}]))


def test_splats_of_other_degrees_are_filled_up(tmp_path):
    Glb().write(pebble(5, 0), tmp_path / "a.glb")
    Glb().write(STONE, tmp_path / "c.glb")
    one, first = glb_chunks(tmp_path / "a.glb")
    other, second = glb_chunks(tmp_path / "c.glb")
    for view in other["bufferViews"]:
        view["byteOffset"] += len(first)
    for accessor in other["accessors"]:
        accessor["bufferView"] += len(one["bufferViews"])
    primitive = other["meshes"][0]["primitives"][0]
    shifted = {name: place + len(one["accessors"]) for name, place in primitive["attributes"].items()}
    one["meshes"][0]["primitives"].append({**primitive, "attributes": shifted})
    one["accessors"] += other["accessors"]
    one["bufferViews"] += other["bufferViews"]
    one["buffers"] = [{"byteLength": len(first) + len(second)}]
    found = read_splat(save(tmp_path / "b.glb", one, first + second))
    assert len(found) == 35 and found.sh_degree == 2 and not found.sh[:5, 1:].any()
    assert same(found.each(lambda value: value[5:]), STONE)


@pytest.mark.parametrize(("code", "kind", "top"), [(5121, "u1", 255), (5123, "<u2", 65535)])
def test_whole_numbers_stand_for_shares_and_rows_may_have_room_between_them(tmp_path, code, kind, top):
    Glb().write(STONE, tmp_path / "a.glb")
    document, numbers = glb_chunks(tmp_path / "a.glb")
    alphas = np.arange(30) % 7 * (top // 7)
    rows = np.zeros((30, 4), kind)
    rows[:, 1] = alphas
    place = document["meshes"][0]["primitives"][0]["attributes"][f"{KHR}:OPACITY"]
    size = np.dtype(kind).itemsize
    view = {"buffer": 0, "byteOffset": len(numbers), "byteLength": rows.nbytes, "byteStride": 4 * size}
    document["accessors"][place].update(
        bufferView=len(document["bufferViews"]), byteOffset=size, componentType=code, normalized=True
    )
    document["bufferViews"].append(view)
    document["buffers"] = [{"byteLength": len(numbers) + rows.nbytes}]
    found = read_splat(save(tmp_path / "b.glb", document, numbers + rows.tobytes()))
    assert np.allclose(found.opacities.sigmoid().numpy(), alphas / top, atol=1e-6)


def with_spz(folder: Path, data: bytes, nested: bool = False, times: int = 1) -> Path:
    """A file whose splat, shown ``times`` times, is an SPZ file in place of attributes."""
    Glb().write(STONE, folder / "a.glb")
    document, _ = glb_chunks(folder / "a.glb")
    packed = {SPZ_IN_GLTF: {"bufferView": 0}}
    (primitive,) = document["meshes"][0]["primitives"]
    primitive["attributes"] = {}
    if nested:
        primitive["extensions"][KHR]["extensions"] = packed
    else:
        primitive["extensions"].update(packed)
    document["meshes"][0]["primitives"] *= times
    document["bufferViews"] = [{"buffer": 0, "byteOffset": 0, "byteLength": len(data)}]
    document["asset"] = {"version": "2.0"}
    return save(folder / "b.glb", document, data)


def packed(scene: Gaussians, folder: Path, version: int) -> Path:
    write_spz(folder / "a.spz", gsply_data(scene), version=version)
    return folder / "a.spz"


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("nested", [True, False])
def test_an_spz_in_place_of_attributes(tmp_path, nested, version):
    whole = packed(STONE, tmp_path, version)
    path = with_spz(tmp_path, whole.read_bytes(), nested)
    plain, found = open_splat(whole).gaussians, open_splat(path)
    assert found.usual == "y-up" and found.named is None
    assert torch.equal(found.gaussians.means, plain.means * torch.tensor([1.0, -1.0, -1.0]))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadFile, match="truncated"):
        read_splat(path)


@pytest.mark.parametrize("version", [3, 4])
def test_an_spz_shown_a_hundred_times_takes_no_memory(tmp_path, version):
    alike = {name: value[:1].repeat(30_000, *[1] * (value.dim() - 1)) for name, value in STONE.tensors().items()}
    data = packed(Gaussians(**alike), tmp_path, version).read_bytes()
    with pytest.raises(BadFile, match="far more than it holds"):
        read_splat(with_spz(tmp_path, data, times=100))


def test_a_glb_says_that_zstandard_is_missing(tmp_path, monkeypatch):
    path = with_spz(tmp_path, packed(STONE, tmp_path, 4).read_bytes())
    monkeypatch.setitem(extras.EXTRAS, "formats", {"no_such_module": "zstandard"})
    with pytest.raises(NotInstalled, match="reading SPZ of version 4 needs zstandard"):
        read_splat(path)


def set_in(*keys):
    """A change that sets the last of the keys to the one before it."""

    def change(document):
        *path, key, value = keys
        at = document
        for step in path:
            at = at[step]
        at[key] = value

    return change


EXTENSION = ("meshes", 0, "primitives", 0, "extensions", KHR)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_in("meshes", 0, "primitives", 0, "extensions", {}), "holds no splat: nothing in it has the extension KHR"),
        (set_in(*EXTENSION, "colorSpace", "lin_rec709_display"), "colorSpace is 'lin_rec709_display'; only 'srgb_rec"),
        (set_in(*EXTENSION, "kernel", "box"), "its kernel is 'box'; only 'ellipse' is read"),
        (set_in("nodes", 0, "scale", [1, 2, 1]), "a node scales its splat unevenly"),
        (set_in("nodes", 0, "scale", [0, 0, 0]), "unevenly, or to nothing"),
        (set_in("nodes", 0, "children", [0]), "its node 0 hangs in two places"),
        (set_in("buffers", 0, "uri", "a.bin"), "keeps numbers outside of the file"),
        (set_in("accessors", 0, "sparse", {}), "has a sparse accessor"),
        (set_in("accessors", 0, "count", 10**12), "its splats unpack to far more than it holds"),
        (set_in("accessors", 0, "count", 29), "do not fit each other"),
        (set_in("accessors", 2, "type", "VEC3"), "do not fit each other"),
        (set_in("bufferViews", 0, "byteLength", 10**9), "a view of its numbers ends after the last one"),
        (set_in("accessors", 0, "byteOffset", 8), "not a sound .glb file"),
        (set_in("bufferViews", 0, "byteStride", 4), "its rows overlap"),
        (set_in("meshes", 0, "primitives", 0, "attributes", {"POSITION": 0}), f"'{KHR}:ROTATION'"),
        (set_in("nodes", "x"), "not a sound .glb file"),
        (set_in("asset", "extras", {"gsdistill_frame": "yup"}), "names the frame 'yup'. Did you mean 'y-up'?"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(tmp_path, change, said):
    path = changed(tmp_path, change)
    with pytest.raises(BadFile) as caught:
        read_splat(path)
    assert said in str(caught.value) and str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_mesh_shown_a_thousand_times_takes_no_memory(tmp_path):
    def many(document):
        document["nodes"] = [{"mesh": 0}] * 100_000
        document["scenes"] = [{"nodes": list(range(100_000))}]

    with pytest.raises(BadFile, match="its splats unpack to far more than it holds"):
        read_splat(changed(tmp_path, many, pebble(3000, 3)))
