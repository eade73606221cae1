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

from gsdistill.core.errors import BadFile
from gsdistill.core.structs import PointCloud
from gsdistill.models.original import look
from gsdistill.models.pickles import read_pickle
from gsdistill.point_e.weights import read_weights
from gsdistill.scene.init.base import CloudSettings
from gsdistill.scene.read import read_splat

SHORTAGES = [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]

# --- pickles


class Evil:
    """Leaves a mark where it is built."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("read", [read_weights, look])
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


@pytest.mark.parametrize("read", [read_weights, look])
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


def archive(path: Path, pickled: bytes) -> Path:
    """An archive as PyTorch writes it, of one number, with another pickle."""
    whole = io.BytesIO()
    torch.save({"x": torch.zeros(1)}, whole)
    with zipfile.ZipFile(whole) as held, zipfile.ZipFile(path, "w") as other:
        for name in held.namelist():
            other.writestr(name, pickled if name.endswith("data.pkl") else held.read(name))
    return path


GIANT = b"\x8a\x06" + (1 << 43).to_bytes(6, "little")  # LONG1 of eight terabytes
NUMBER = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ"  # of the archive's one file
ENDLESS = b"ctorch._utils\n_rebuild_tensor_v2\n(" + NUMBER + b"K\0" + GIANT + b"K\x02\x86K\0K\0\x86\x89NtR"


@pytest.mark.parametrize(
    ("built", "named"),
    [
        (b"c__builtin__\nbytearray\n" + GIANT + b"\x85R", "'__builtin__.bytearray'"),
        (b"cbuiltins\nbytearray\n" + GIANT + b"\x85R", "'builtins.bytearray'"),
        (b"X\x08\0\0\0builtinsX\x09\0\0\0bytearray\x93" + GIANT + b"\x85R", "the operation STACK_GLOBAL"),
        (b"(" + GIANT + b"ibuiltins\nbytearray\n", "the operation INST"),
        (b"ctorch\nFloatTensor\n" + GIANT + b"\x85R", "'torch.FloatTensor'"),
        (b"ctorch.storage\nUntypedStorage\n" + GIANT + b"\x85R", "a call of 'torch.storage.UntypedStorage'"),
        (b"ctorch.storage\nUntypedStorage\n" + GIANT + b"\x85\x81", "the operation NEWOBJ"),
        (b"c_codecs\nencode\nX\x01\0\0\0aX\x03\0\0\0hex\x86R", "'_codecs.encode'"),
        # a tensor of endless pairs, one number in the file, poured into a dictionary
        (b"ccollections\nOrderedDict\n" + ENDLESS + b"\x85R", "a call of 'collections.OrderedDict'"),
        (b"ccollections\nCounter\n" + ENDLESS + b"\x85R", "a call of 'collections.Counter'"),
        (b"ccollections\nOrderedDict\n)R" + ENDLESS + b"b", "a state for what is no dictionary"),
        (b"ccollections\nOrderedDict\nq\1" + ENDLESS + b"q\2\x85q\3h\1h\3R", "a call of 'collections.OrderedDict'"),
    ],
)
def test_a_pickle_that_takes_any_memory_is_refused_unread(built, named, tmp_path, monkeypatch):
    path = archive(tmp_path / "a.pt", b"\x80\x02}X\x01\0\0\0x" + built + b"s.")
    assert path.stat().st_size < 2048
    monkeypatch.setattr(torch, "load", lambda *args, **options: pytest.fail("it was run"))
    assert f"{path} is a pickle of more than tensors ({named}), which" in refused(read_weights, path)


def test_the_endless_pairs_themselves_take_none(tmp_path):
    path = archive(tmp_path / "a.pt", b"\x80\x02}X\x01\0\0\0x" + ENDLESS + b"s.")
    assert read_weights(path)["x"].shape == (1 << 43, 2)


@pytest.mark.parametrize(
    "pickled",
    [
        b"", b".", b"\x80\x02h\x05.", b"\x80\x02}R.", b"\x80\x02t.", b"\x80\x02c\xff\n\xff\n.", b"\xfe",
        b"\x80\x02X\xff\xff\xff\xff.", b"\x80\x02\x8a\xff.", b"\x80\x02X\1\0\0\0\xff.", b"\x80\x02}K\1K\1K\1a.",
    ],
)  # fmt: skip
def test_a_broken_pickle_is_one_line(pickled, tmp_path):
    refused(read_weights, archive(tmp_path / "a.pt", pickled))


def test_a_pickle_beyond_any_checkpoint_is_not_walked(tmp_path):
    path = archive(tmp_path / "a.pt", b"\x80\x02" + b"]" * (8 << 20) + b".")
    assert "its pickle has 8388611 bytes, where" in refused(read_weights, path)


def test_the_pickle_that_is_walked_is_the_one_that_torch_finds(tmp_path):
    """Two lists of contents: Python's zipfile reads the one that is last, torch the one at the place that is told."""
    wild = b"\x80\x02cbuiltins\nbytearray\nK\1\x85R."
    evil = archive(tmp_path / "evil.pt", wild).read_bytes()
    mild = archive(tmp_path / "mild.pt", b"\x80\x02}.".ljust(len(wild))).read_bytes()
    both = evil[:-22] + mild[:-22] + evil[-22:]  # the end tells the size and the place of the first list
    (tmp_path / "both.pt").write_bytes(both)
    with zipfile.ZipFile(tmp_path / "both.pt") as seen:
        assert not any(b"bytearray" in seen.read(name) for name in seen.namelist())
    assert "bytearray" in refused(read_weights, tmp_path / "both.pt")


def test_a_checkpoint_of_training_is_read_whole(tmp_path):
    """What Lightning keeps beside the weights: numbers, callbacks, the states of optimizer and schedule."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.eye(2)).sum().backward()
    optimizer.step()
    given = {
        "epoch": 3, "global_step": 1 << 40, "pytorch-lightning_version": "2.4.0", "state_dict": model.state_dict(),
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5), "dirpath": None}},
        "optimizer_states": [optimizer.state_dict()], "parameters": dict(model.named_parameters()),
        "lr_schedulers": [torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 4]).state_dict()],
        "hyper_parameters": {"dtype": torch.bfloat16, "size": torch.Size((1, 2)), "device": torch.device("cpu")},
        "half": torch.ones(1).half(), "eighth": torch.ones(2).to(torch.float8_e4m3fn),
        "flags": torch.tensor([True]), "wide": torch.ones(1).double(),
    }  # fmt: skip
    torch.save(given, tmp_path / "a.ckpt")
    read = read_pickle(tmp_path / "a.ckpt")
    assert read.keys() == given.keys() and vars(read["state_dict"]) == vars(model.state_dict())
    assert all(torch.equal(read["state_dict"][name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(read["parameters"][name], value) for name, value in model.named_parameters())
    for name in ("hyper_parameters", "lr_schedulers", "callbacks", "global_step"):
        assert read[name] == given[name]
    assert torch.equal(read["eighth"].float(), torch.ones(2)) and read["wide"].dtype == torch.float64


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda error: type(error).__name__)
def test_no_memory_for_a_sound_file_does_not_make_it_a_broken_one(error, tmp_path, monkeypatch):
    def short(*args: object, **options: object) -> None:
        raise error

    torch.save({"x": torch.zeros(1)}, tmp_path / "a.pt")
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors")
    monkeypatch.setattr(torch, "load", short)
    monkeypatch.setattr("safetensors.torch.load_file", short)
    for name in ("a.pt", "a.safetensors"):
        with pytest.raises(type(error)) as caught:
            read_weights(tmp_path / name)
        assert caught.value is error


def test_a_state_dict_that_holds_itself_ends(tmp_path):
    state: dict[str, object] = {"x": torch.zeros(1)}
    state["state_dict"] = state
    torch.save(state, tmp_path / "model.ckpt")
    assert "no Stable Diffusion checkpoint" in refused(look, tmp_path / "model.ckpt")


@pytest.mark.parametrize("kind", [".pt", ".safetensors"])
def test_weights_that_are_not_finite_are_refused(kind, tmp_path):
    from gsdistill.point_e.weights import fill

    model, path = torch.nn.Linear(2, 2), tmp_path / f"a{kind}"
    state = {**model.state_dict(), "bias": torch.tensor([1.0, float("nan")])}
    (save_file if kind == ".safetensors" else torch.save)(state, path)
    assert "'bias' holds values that are not finite numbers" in refused(lambda p: fill(model, read_weights(p), p), path)


# --- splats and clouds


def test_a_count_beyond_the_file_takes_no_memory(tmp_path):
    path = tmp_path / "a.ply"
    path.write_bytes(
        b"ply\nformat binary_little_endian 1.0\nelement vertex 999999999999\nproperty float x\nend_header\n"
    )
    assert "promises at least 3999999999996 bytes" in refused(read_splat, path)


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
    from gsdistill.prior.families.small.prior import scaled_linear_schedule

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
