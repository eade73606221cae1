import numpy as np
import pytest
import torch
from plyfile import PlyData

from gsdistill.core.errors import OutputError
from gsdistill.core.structs import Gaussians
from gsdistill.export.ply import Ply
from gsdistill.scene.read import read_splat


def random_scene(count: int, degree: int) -> Gaussians:
    g = torch.Generator().manual_seed(degree)
    shapes = {"means": (3,), "quats": (4,), "scales": (3,), "opacities": (), "sh": ((degree + 1) ** 2, 3)}
    values = {name: torch.randn(count, *shape, generator=g) for name, shape in shapes.items()}
    exact = values["quats"].double()
    return Gaussians(**{**values, "quats": (exact / exact.norm(dim=-1, keepdim=True)).float()})


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_layout_is_the_one_viewers_read(tmp_path, degree):
    scene = random_scene(7, degree)
    Ply(frame="world").write(scene, tmp_path / "a.ply")
    file = PlyData.read(str(tmp_path / "a.ply"))
    rest = (degree + 1) ** 2 - 1
    assert not file.text and file.byte_order == "<" and [e.name for e in file.elements] == ["vertex"]
    assert [p.name for p in file["vertex"].properties] == [
        *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
        *(f"f_rest_{i}" for i in range(3 * rest)),
        *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
    ]
    assert {p.val_dtype for p in file["vertex"].properties} == {"f4"}
    data = file["vertex"].data
    assert np.array_equal(data["z"], scene.means[:, 2].numpy()) and not data["ny"].any()
    assert np.array_equal(data["rot_0"], scene.quats[:, 0].numpy())
    assert np.array_equal(data["opacity"], scene.opacities.numpy())
    for channel in range(3):
        for k in range(rest):
            assert np.array_equal(data[f"f_rest_{channel * rest + k}"], scene.sh[:, k + 1, channel].numpy())


@pytest.mark.parametrize("degree", [0, 3])
def test_the_round_trip_keeps_every_bit(tmp_path, degree):
    scene = random_scene(1000, degree)
    scene.means[0] = torch.tensor([-0.0, 1e-42, 3.4e38])  # a signed zero, a subnormal, the edge of the range
    Ply(frame="world").write(scene, tmp_path / "a.ply")
    again = read_splat(tmp_path / "a.ply")
    for name, value in scene.tensors().items():
        assert torch.equal(value.view(torch.int32), getattr(again, name).view(torch.int32)), name
    Ply(frame="world").write(again, tmp_path / "b.ply")
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()


def test_trainable_and_float64_parameters_are_written_in_float32(tmp_path):
    scene = random_scene(3, 0)
    Ply().write(scene.each(lambda v: v.double().requires_grad_()), tmp_path / "a.ply")
    assert torch.equal(read_splat(tmp_path / "a.ply").means, scene.means)


def test_an_unwritable_place_is_one_clear_error_and_leaves_nothing(tmp_path):
    (tmp_path / "a").write_text("a file, not a folder")
    with pytest.raises(OutputError, match=r"a\.ply"):
        Ply().write(random_scene(3, 0), tmp_path / "a" / "a.ply")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_splat_of_nothing_is_refused(tmp_path):
    with pytest.raises(OutputError, match="there is no Gaussian to write"):
        Ply().write(random_scene(0, 1), tmp_path / "a.ply")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "sh"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 1e200])
def test_what_no_reader_takes_is_refused_with_its_count(tmp_path, name, value):
    scene = random_scene(5, 1)
    broken = getattr(scene, name).double()
    broken[3] = value
    with pytest.raises(OutputError, match=rf"NaN or infinite among 5 Gaussians: {name} \({broken[3].numel()}\)$"):
        Ply().write(Gaussians(**{**scene.tensors(), name: broken}), tmp_path / "a.ply")
    scene.quats[1:3] = 0.0
    with pytest.raises(OutputError, match=r"the quaternion is zero, which is no rotation, for 2 of 5 Gaussians"):
        Ply().write(scene, tmp_path / "a.ply")
    assert not list(tmp_path.iterdir())
