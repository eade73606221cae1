"""Files are read here by the text of the extension alone: json, numpy and its formulas."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from export.decoders import KHR, glb_attributes, glb_chunks, read_glb
from export.scenes import extreme, fidelity, pebble

from gsdistill.core.structs import SH_C0
from gsdistill.export.glb import Glb
from gsdistill.export.ply import Ply
from gsdistill.scene.turn import frame_matrix, from_frame, to_frame

MODULES = Path(os.environ.get("GSDISTILL_NODE_MODULES") or Path(__file__).parents[1] / "browser" / "node_modules")
OTHERS_TOOL = MODULES / "@playcanvas" / "splat-transform" / "bin" / "cli.mjs"
degrees = pytest.mark.parametrize("degree", [0, 1, 2, 3])


@degrees
def test_pictures_survive_and_no_axis_is_flipped(tmp_path, degree):
    stone = pebble(400, degree)
    Glb().write(stone, tmp_path / "a.glb")
    same, flipped = fidelity(stone, from_frame(read_glb(tmp_path / "a.glb"), "y-up"))
    assert same >= 45 and flipped < 30


@degrees
def test_the_document_says_what_the_extension_asks_for(tmp_path, degree):
    stone = pebble(7, degree)
    Glb().write(stone, tmp_path / "a.glb")
    document, numbers = glb_chunks(tmp_path / "a.glb")
    (primitive,) = document["meshes"][0]["primitives"]
    assert document["asset"]["version"] == "2.0" and document["asset"]["generator"].startswith("gsdistill ")
    assert document["extensionsUsed"] == [KHR] and "extensionsRequired" not in document
    assert primitive["mode"] == 0
    assert primitive["extensions"][KHR] == {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    bands = [f"{KHR}:SH_DEGREE_{band}_COEF_{n}" for band in range(degree + 1) for n in range(2 * band + 1)]
    basic = ["POSITION", "COLOR_0", f"{KHR}:ROTATION", f"{KHR}:SCALE", f"{KHR}:OPACITY"]
    assert list(primitive["attributes"]) == basic + bands
    means = to_frame(stone, "y-up").means
    bounds = document["accessors"][primitive["attributes"]["POSITION"]]
    assert bounds["min"] == means.amin(dim=0).tolist() and bounds["max"] == means.amax(dim=0).tolist()
    ends = [0] + [view["byteOffset"] + view["byteLength"] for view in document["bufferViews"]]
    assert [view["byteOffset"] for view in document["bufferViews"]] == ends[:-1]
    assert ends[-1] == document["buffers"][0]["byteLength"] == len(numbers) and not any(end % 4 for end in ends)


def test_the_numbers_mean_what_the_extension_says(tmp_path):
    stone = pebble(50, 1)
    Glb().write(stone, tmp_path / "a.glb")
    found = glb_attributes(tmp_path / "a.glb")
    x, y, z, w = found[f"{KHR}:ROTATION"].astype(float).T
    sx, sy, sz = found[f"{KHR}:SCALE"].astype(float).T
    # The matrix C of the text, whose C C^T is the covariance.
    rows = [
        [sx * (1 - 2 * (y * y + z * z)), sy * (2 * (x * y - w * z)), sz * (2 * (x * z + w * y))],
        [sx * (2 * (x * y + w * z)), sy * (1 - 2 * (x * x + z * z)), sz * (2 * (y * z - w * x))],
        [sx * (2 * (x * z - w * y)), sy * (2 * (y * z + w * x)), sz * (1 - 2 * (x * x + y * y))],
    ]
    C = torch.from_numpy(np.array(rows)).permute(2, 0, 1)
    M = frame_matrix("y-up")
    R = rotation_matrices(stone.quats.double())
    truth = M @ R @ torch.diag_embed((2 * stone.scales.double()).exp()) @ R.mT @ M.T
    assert torch.allclose(C @ C.mT, truth, rtol=1e-5, atol=1e-9)
    assert np.allclose(found[f"{KHR}:OPACITY"][:, 0], 1 / (1 + np.exp(-stone.opacities.double().numpy())), atol=1e-7)
    direction = np.array([0.36, -0.48, 0.8])  # unit, in the file's axes
    dx, dy, dz = direction
    m1, zero, p1 = (found[f"{KHR}:SH_DEGREE_1_COEF_{n}"].astype(float) for n in range(3))
    told = 0.4886025119029199 * (dz * zero - dy * m1 - dx * p1)
    a, b, c = M.T @ torch.from_numpy(direction)  # the same direction in our world
    sh = stone.sh.double()
    assert np.allclose(told, 0.4886025119029199 * (c * sh[:, 2] - b * sh[:, 1] - a * sh[:, 3]), atol=1e-6)


def rotation_matrices(quats: torch.Tensor) -> torch.Tensor:
    from scipy.spatial.transform import Rotation

    return torch.from_numpy(Rotation.from_quat(quats.roll(-1, dims=1).numpy()).as_matrix())


def test_extreme_values_stay_in_range(tmp_path):
    Glb(sh_pad=3).write(extreme(), tmp_path / "a.glb")
    found = glb_attributes(tmp_path / "a.glb")
    assert all(np.isfinite(value).all() for value in found.values())
    assert (found[f"{KHR}:SCALE"] > 0).all() and found[f"{KHR}:SCALE"].max() > 1e8
    assert found[f"{KHR}:OPACITY"].min() >= 0 and found[f"{KHR}:OPACITY"].max() == 1
    assert np.allclose(np.linalg.norm(found[f"{KHR}:ROTATION"].astype(float), axis=1), 1, atol=2e-7)
    assert found["COLOR_0"][8, :3].tolist() == [1, 1, 1] and found["COLOR_0"][9, :3].tolist() == [0, 0, 0]


def test_a_reader_without_the_extension_sees_points_in_linear_colour(tmp_path):
    stone = pebble(3, 0)
    srgb = torch.tensor([[0.5, 0.0, 1.0], [0.02, 0.25, 0.75], [0.1, 0.2, 0.9]])
    stone.sh[:, 0] = (srgb - 0.5) / SH_C0
    stone.opacities[:] = torch.tensor([0.0, 80.0, -80.0])
    Glb(frame="world").write(stone, tmp_path / "a.glb")
    linear = [0.214041, 0.0, 1.0, 0.001548, 0.050876, 0.522522, 0.010023, 0.033105, 0.787412]
    found = glb_attributes(tmp_path / "a.glb")["COLOR_0"]
    assert np.abs(found[:, :3].ravel() - linear).max() < 0.501 / 255
    (cloud,) = trimesh.load(tmp_path / "a.glb").geometry.values()
    assert isinstance(cloud, trimesh.PointCloud) and np.allclose(cloud.vertices, stone.means)
    assert np.array_equal(cloud.colors / 255, found) and found[:, 3].tolist() == [128 / 255, 1, 0]


@pytest.mark.skipif(not OTHERS_TOOL.is_file() or not shutil.which("node"), reason="needs node and splat-transform")
@degrees
def test_another_program_writes_the_same_numbers(tmp_path, degree):
    """splat-transform takes a .ply to be turned by 180 degrees about z, as ours is, and rights it."""
    stone = pebble(60, degree)
    Glb().write(stone, tmp_path / "ours.glb")
    Ply().write(stone, tmp_path / "a.ply")
    subprocess.run(["node", OTHERS_TOOL, "-q", tmp_path / "a.ply", tmp_path / "theirs.glb"], check=True)
    ours, theirs = glb_attributes(tmp_path / "ours.glb"), glb_attributes(tmp_path / "theirs.glb")
    assert list(ours) == list(theirs)
    for name in ours.keys() - {"COLOR_0"}:  # which it leaves as sRGB, against the text
        assert np.allclose(ours[name], theirs[name], rtol=1e-6, atol=1e-7), name


def test_nothing_is_lost_but_sizes_whose_exponential_is_none(tmp_path):
    assert Glb().write(pebble(30, 1), tmp_path / "a.glb") == []
    told = Glb().write(extreme(), tmp_path / "a.glb")
    assert told == ["scales of 3 of 300 Gaussians are cut off to -20 .. 20"]
