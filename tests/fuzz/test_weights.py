"""Weights, splats and meshes that once ran, filled the memory, ended in a traceback or were taken for sound."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from fuzz import seeds
from fuzz.common import refused
from safetensors.torch import save_file

from gsdistill.errors import BadFile
from gsdistill.point_e.weights import read_weights
from gsdistill.prior.single_file import kind_of
from gsdistill.scene.init.base import CloudSettings
from gsdistill.scene.ply import read_ply
from gsdistill.structs import PointCloud

# --- pickles


class Evil:
    """Leaves a mark where it is built."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("read", [read_weights, kind_of])
def test_a_malicious_pickle_does_not_run(read, tmp_path):
    mark, path = tmp_path / "was-here", tmp_path / "model.pt"
    torch.save({"model.diffusion_model.x": torch.zeros(1), "y": Evil(mark)}, path)
    assert "is a pickle of more than tensors (" in refused(read, path) and not mark.exists()
    torch.save({"y": Evil(mark)}, path, _use_new_zipfile_serialization=False)
    refused(read, path)
    evil = pickle.dumps(Evil(mark))
    path.write_bytes(evil)
    refused(read, path)
    with tarfile.open(path, "w") as archive:  # PyTorch's oldest layout
        for name in ("storages", "tensors", "pickle"):
            entry = tarfile.TarInfo(name)
            entry.size = len(evil)
            archive.addfile(entry, io.BytesIO(evil))
    refused(read, path)
    assert not mark.exists()
    pickle.loads(evil)
    assert mark.exists()  # it would have


@pytest.mark.parametrize("read", [read_weights, kind_of])
def test_an_archive_that_is_compressed_is_not_unpacked(read, tmp_path):
    whole, path = tmp_path / "whole.pt", tmp_path / "bomb.pt"
    torch.save({"x": torch.zeros(1)}, whole)
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in archive.namelist():
            bomb.writestr(name, b"\0" * (64 << 20) if name.endswith("data/0") else archive.read(name))
    assert path.stat().st_size < 1 << 20
    assert "is compressed" in refused(read, path)


def test_an_archive_that_claims_terabytes_takes_none(tmp_path):
    whole, path = tmp_path / "whole.pt", tmp_path / "huge.pt"
    torch.save({"x": torch.zeros(7)}, whole)
    seven, terabytes = b"K\x07", b"\x8a\x06" + (1 << 43).to_bytes(6, "little")
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(path, "w") as huge:
        for name in archive.namelist():
            held = archive.read(name)
            huge.writestr(name, held.replace(seven, terabytes) if name.endswith(".pkl") else held)
    assert "cannot be read as a checkpoint" in refused(read_weights, path)


def test_a_state_dict_that_holds_itself_ends(tmp_path):
    state: dict[str, object] = {"x": torch.zeros(1)}
    state["state_dict"] = state
    torch.save(state, tmp_path / "model.ckpt")
    assert "no Stable Diffusion checkpoint" in refused(kind_of, tmp_path / "model.ckpt")


@pytest.mark.parametrize("kind", [".pt", ".safetensors"])
def test_weights_that_are_not_finite_are_refused(kind, tmp_path):
    from gsdistill.point_e.weights import fill

    model, path = torch.nn.Linear(2, 2), tmp_path / f"a{kind}"
    state = {**model.state_dict(), "bias": torch.tensor([1.0, float("nan")])}
    (save_file if kind == ".safetensors" else torch.save)(state, path)
    assert "'bias' holds what is no finite number" in refused(lambda p: fill(model, read_weights(p), p), path)


# --- splats and clouds


def test_a_count_beyond_the_file_takes_no_memory(tmp_path):
    path = tmp_path / "a.ply"
    path.write_bytes(
        b"ply\nformat binary_little_endian 1.0\nelement vertex 999999999999\nproperty float x\nend_header\n"
    )
    assert "promises at least 3999999999996 bytes" in refused(read_ply, path)


def test_a_colour_that_is_no_number_makes_no_gaussian():
    points = torch.eye(4)[:, :3]
    colors = torch.full((4, 3), float("nan"))
    with pytest.raises(BadFile, match="x: colours of its 4 points are NaN or infinite"):
        CloudSettings().dress(PointCloud(points, colors), torch.Generator(), "x")


def test_a_mesh_in_four_dimensions_and_a_colour_of_four_are_refused(tmp_path):
    from gsdistill.scene.mesh import read_mesh

    (tmp_path / "a.mtl").write_text("newmtl m\nKd 1 0 0 1\n")
    path = tmp_path / "a.obj"
    path.write_text("mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl m\nf 1/1 2/1 3/1\n")
    assert "its colours are not sound" in refused(read_mesh, path)
    seeds.meshes(tmp_path)
    tree = json.loads((tmp_path / "box.gltf").read_text())
    place = tree["meshes"][0]["primitives"][0]["attributes"]["POSITION"]
    tree["accessors"][place].update(type="VEC4", count=6)
    (tmp_path / "box.gltf").write_text(json.dumps(tree))
    assert "its vertices have 4 coordinates, not 3" in refused(read_mesh, tmp_path / "box.gltf")


@pytest.mark.parametrize("value", [10**12, "x", 0, 10**400])
def test_a_schedule_of_endless_steps_takes_no_memory(value, tmp_path):
    from gsdistill.prior.shapes_prior import scaled_linear_schedule

    config = {"beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": value, "beta_schedule": "scaled_linear"}
    (tmp_path / "a.json").write_text(json.dumps(config))
    assert "is not the config of a scheduler" in refused(scaled_linear_schedule, tmp_path / "a.json")


@pytest.mark.parametrize("change", [{"base": {"size": {"layers": 10**9}}}, {"base": {"size": {"width": 2**40}}}])
def test_a_point_e_of_endless_size_is_not_built(change, tmp_path):
    from gsdistill.point_e.card import read_card

    (tmp_path / "config.json").write_text(json.dumps({"name": "x", **change}))
    assert "is out of range" in refused(read_card, tmp_path / "config.json")


def test_a_safetensors_header_that_claims_the_whole_memory(tmp_path):
    path = tmp_path / "a.safetensors"
    for size in (2**64 - 1, 2**40, 100_000_001):
        path.write_bytes(struct.pack("<Q", size) + b"{}")
        assert "damaged" in refused(read_weights, path)
