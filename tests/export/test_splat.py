import pytest
import torch
from export.scenes import errors, pebble

from gsdistill.core.errors import ConfigError
from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.export.formats import writer_for
from gsdistill.export.settings import ExportSettings
from gsdistill.export.splat import Splat


def test_the_bytes_of_one_gaussian(tmp_path):
    scene = Gaussians(
        means=torch.tensor([[1.0, -2.0, 0.5]]),
        quats=torch.tensor([[0.5, -0.5, 0.5, -0.5]]),
        scales=torch.zeros(1, 3),
        opacities=torch.tensor([-20.0]),
        sh=torch.tensor([[[0.5, 0.1, -9.0]]]) / SH_C0,
    )
    Splat(frame="world").write(scene, tmp_path / "a.splat")
    floats = "0000803f 000000c0 0000003f" + "0000803f" * 3
    assert (tmp_path / "a.splat").read_bytes() == bytes.fromhex(f"{floats} ff990000 c040c040")


def test_every_value_is_right_to_half_a_step(tmp_path):
    found = errors("splat", pebble(400, 3), tmp_path)
    bounds = {"means": 0.0, "scales": 1e-6, "opacities": 0.5 / 255, "sh0": 0.5 / 255 / SH_C0, "angles": 1 / 64}
    assert found.keys() == bounds.keys()
    assert not {kind: error for kind, error in found.items() if error > 1.001 * bounds[kind]}


def test_what_the_format_leaves_out_is_told(tmp_path):
    scene = pebble(20, 1)
    scene.sh[:, 0], scene.sh[4:7, 0] = 0.0, 2.0
    left_out = "view-dependent colour is left out: .splat cannot hold it"
    cut = "colours of 3 of 20 Gaussians are cut off to 0 .. 1"
    assert Splat().write(scene, tmp_path / "a.splat") == [left_out, cut]
    scene.sh[:, 1:] = 0.0
    assert Splat().write(scene, tmp_path / "a.splat") == [cut]


def test_view_dependent_colour_is_refused():
    with pytest.raises(ConfigError, match=r"^sh_pad = 3: \.splat holds no view-dependent colour$"):
        writer_for("a.splat", ExportSettings(sh_pad=3))
    writer_for("a.ply", ExportSettings(sh_pad=3))
