import gzip
import struct
from dataclasses import replace

import pytest
from export.scenes import errors, pebble, written

from gsdistill.core.errors import OutputError
from gsdistill.export.spz import Spz


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_every_value_is_right_to_half_a_step(tmp_path, degree):
    found = errors("spz", pebble(400, degree), tmp_path)
    bounds = {"means": 2**-13, "scales": 1 / 32, "opacities": 0.5 / 255, "sh0": 0.5 / 255 / 0.15, "angles": 4e-3}
    bounds |= {f"sh{band}": 1 / 256 for band in range(1, degree + 1)}
    assert found.keys() == bounds.keys()
    assert not {kind: error for kind, error in found.items() if error > 1.001 * bounds[kind]}


def test_the_header_names_version_3_and_the_first_position_is_right_up_back(tmp_path):
    scene = pebble(5, 2)
    Spz().write(scene, tmp_path / "a.spz")
    raw = gzip.decompress((tmp_path / "a.spz").read_bytes())
    assert struct.unpack_from("<4sIIBBBB", raw) == (b"NGSP", 3, 5, 2, 12, 0, 0)
    front, left, up = scene.means[0].tolist()  # of our world; rdf is right, down, front
    position = [int.from_bytes(raw[16 + 3 * i : 19 + 3 * i], "little", signed=True) / 4096 for i in range(3)]
    assert position == pytest.approx([-left, up, -front], abs=2**-13)


def test_a_scene_beyond_its_range_is_refused_and_leaves_nothing(tmp_path):
    scene = pebble(4, 0)
    scene.means[1, 2] = -2047.5
    assert errors("spz", scene, tmp_path)["means"] <= 2**-13
    scene.means[1, 2] = -2048.5
    with pytest.raises(OutputError, match=r"up to 2048, not 2048\.5; \.ply and \.sog hold any"):
        Spz().write(scene, tmp_path / "b.spz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.spz"]


def test_harmonics_beyond_one_are_cut_not_wrapped(tmp_path):
    scene = pebble(4, 1)
    scene.sh[0, 1:], scene.sh[1, 1:] = 3.0, -3.0
    found = written("spz", scene, tmp_path).sh[:2, 1:].abs()
    assert found.min() == 127 / 128 and found.max() == 1


def test_what_is_cut_off_or_rounded_away_is_told(tmp_path):
    scene = pebble(100, 1)
    assert Spz().write(scene, tmp_path / "a.spz") == []
    scene.sh[:7, 2], scene.sh[7, 0], scene.scales[8:10] = 1.5, 4.0, -11.0
    assert Spz().write(scene, tmp_path / "a.spz") == [
        "scales of 2 of 100 Gaussians are cut off to -10 .. 5.938",
        "colours of 1 of 100 Gaussians are cut off to -0.4403 .. 1.44",
        "harmonics above degree 0 of 7 of 100 Gaussians are cut off to -1 .. 1",
    ]
    small = pebble(100, 0)
    small = replace(small, means=small.means * 1e-4, scales=small.scales - 9.2)
    told = Spz().write(small, tmp_path / "a.spz")
    assert told[0].startswith("positions of ") and "are rounded by up to 7." in told[0]
