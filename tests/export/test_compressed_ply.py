import pytest
from export.scenes import errors, pebble
from plyfile import PlyData

from gsdistill.export.compressed_ply import CompressedPly


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_every_value_is_right_to_half_a_step(tmp_path, degree):
    found = errors("compressed-ply", pebble(400, degree), tmp_path)
    bounds = {"means": 1.7 / 1023 / 2, "scales": 1.5 / 1023 / 2, "opacities": 0.5 / 255, "sh0": 1.78 / 255 / 2}
    bounds |= {"angles": 4e-3} | {f"sh{band}": 4 / 256 for band in range(1, degree + 1)}
    assert found.keys() == bounds.keys()
    assert not {kind: error for kind, error in found.items() if error > 1.001 * bounds[kind]}


def test_what_a_chunk_has_in_common_is_exact(tmp_path):
    found = errors("compressed-ply", pebble(1, 3), tmp_path)
    assert max(found[kind] for kind in ("means", "scales", "sh0")) < 1e-6


def test_without_harmonics_there_is_no_table_of_them(tmp_path):
    CompressedPly().write(pebble(300, 0), tmp_path / "a.compressed.ply")
    file = PlyData.read(str(tmp_path / "a.compressed.ply"))
    assert [(element.name, element.count) for element in file.elements] == [("chunk", 2), ("vertex", 300)]
