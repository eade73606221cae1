import numpy as np
import numpy.lib.recfunctions as rfn
import pytest
import torch
from plyfile import PlyData, PlyElement, PlyListProperty

from gsdistill.core.errors import BadFile, Notice
from gsdistill.core.structs import SH_C0, RenderOptions
from gsdistill.scene.ply import read_vertices
from gsdistill.scene.read import read_splat
from gsdistill.scene.turn import from_frame

NAMES = [
    *("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
]


def splat_rows(count: int = 5, rest: int = 0, kind: str = "f4") -> np.ndarray:
    names = [*NAMES, *(f"f_rest_{i}" for i in range(rest))]
    rows = np.empty(count, dtype=[(name, kind) for name in names])
    rng = np.random.default_rng(0)
    for name in names:
        rows[name] = rng.normal(size=count).astype("f4")
    return rows


def save(path, rows, text=False, order="<"):
    PlyData([PlyElement.describe(rows, "vertex")], text=text, byte_order=order).write(str(path))
    return path


def message(path) -> str:
    with pytest.raises(BadFile) as caught:
        read_splat(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text


@pytest.mark.parametrize(("text", "order"), [(False, "<"), (False, ">"), (True, "=")])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_every_encoding_reads_to_the_same_values(tmp_path, text, order, kind):
    rows = splat_rows(rest=9, kind=kind)
    scene = read_splat(save(tmp_path / "a.ply", rows, text, order))
    assert np.array_equal(scene.means.numpy(), np.stack([rows[n] for n in "xyz"], 1).astype("f4"))
    assert np.array_equal(scene.opacities.numpy(), rows["opacity"].astype("f4"))
    assert np.array_equal(scene.quats.numpy()[:, 3], rows["rot_3"].astype("f4"))
    assert scene.sh_degree == 1 and {t.dtype for t in scene.tensors().values()} == {torch.float32}
    for channel in range(3):
        assert np.array_equal(scene.sh[:, 0, channel].numpy(), rows[f"f_dc_{channel}"].astype("f4"))
        for k in range(1, 4):
            assert np.array_equal(scene.sh[:, k, channel].numpy(), rows[f"f_rest_{3 * channel + k - 1}"].astype("f4"))


def test_the_order_of_the_properties_does_not_matter_and_others_are_passed_over(tmp_path):
    rows = splat_rows()
    other = np.empty(5, dtype=[("extra", "u1"), *((name, "f4") for name in reversed(NAMES))])
    for name in NAMES:
        other[name] = rows[name]
    first, second = read_splat(save(tmp_path / "a.ply", rows)), read_splat(save(tmp_path / "b.ply", other))
    assert all(torch.equal(getattr(first, name), getattr(second, name)) for name in first.tensors())


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    assert "No such file" in message(tmp_path / "none.ply")
    with pytest.raises(BadFile, match=r"is a folder without gaussians\.ply"):
        read_splat(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"pl", b"solid cube"])
def test_not_a_ply(tmp_path, content):
    path = tmp_path / "a.ply"
    path.write_bytes(content)
    assert ("not a sound .sog file" if content.startswith(b"PK") else "not a splat that is read") in message(path)
    with pytest.raises(BadFile, match="does not begin with 'ply'"):
        read_vertices(path)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"ply\nformat binary_little_endian 1.0\nelement vertex 3\n" + b"x" * 100_000, "its header does not end"),
        (b"plywood\nend_header\n", "its header does not end"),
        (b"ply\ncomment\nend_header\n", "expected one of {format"),
        (b"ply\nformat middle_endian 1.0\nend_header\n", "middle_endian"),
        (b"ply\nformat ascii 1.0\nelement vertex -3\nproperty float x\nend_header\n", "negative"),
        (b"ply\nformat ascii 1.0\nelement vertex -0\nproperty float x\nend_header\n", "not a whole number"),
        (b"ply\nformat ascii 1.0\nelement vertex many\nproperty float x\nend_header\n", "count"),
        (b"ply\nformat ascii 1.0\nelement vertex 3\nproperty quaternion x\nend_header\n", "quaternion"),
        (b"ply\nformat ascii 1.0\nelement vertex 3\nend_header\n", "no properties"),
        (b"ply\nformat ascii 1.0\nelement face 0\nproperty float x\nend_header\n", "no vertices, only face"),
        (b"ply\nformat ascii 1.0\nend_header\n", "no vertices, only a header"),
        (b"ply\nformat ascii 1.0\ncomment \xff\nend_header\n", "no vertices, only a header"),
        (b"ply\nformat ascii 1.0\ncomment " + b"x" * (5 << 20), "does not end within the 4,194,304 bytes"),
        (b"ply\nformat ascii 1.0\ncomment \xff\n\nproperty int x\nend_header\n", "line 5: expected one of {element"),
    ],
)
def test_a_broken_header_is_refused(tmp_path, header, said):
    (tmp_path / "a.ply").write_bytes(header)
    assert said in message(tmp_path / "a.ply")


REMARKS = [
    "comment Erzeugt von Müller, 路径 D:/数据".encode(),
    "comment © 2024 Société".encode("latin-1"),
    b"obj_info \xff\xfe\x00\x1b",
    *[b"comment camera" + b" 0.123456" * 100] * 100,
    *(b"", b"  ", b"comment", b"obj_info", b"comment end_header"),
]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", [(False, "<"), (False, ">"), (True, "=")])
@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r", b" \t\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_remarks_blanks_and_line_ends_of_a_header_are_of_no_account(tmp_path, encoding, ends, mark):
    path = save(tmp_path / "a.ply", splat_rows(7, rest=9), *encoding)
    plain = read_splat(path)
    header, end, data = path.read_bytes().partition(b"end_header\n")
    lines = header.splitlines()
    lines = [*lines[:2], *REMARKS, b"comment gsdistill frame rdf", *lines[2:6], *REMARKS, *lines[6:], end.strip(), b""]
    path.write_bytes(mark + ends.join(lines) + data)
    assert read_vertices(path).frame == "rdf"
    found, turned = read_splat(path), from_frame(plain, "rdf")
    assert all(torch.equal(getattr(found, name), getattr(turned, name)) for name in plain.tensors())


def test_data_that_begin_like_a_line_end_are_not_taken_for_one(tmp_path):
    rows = splat_rows(1)
    rows["x"] = np.frombuffer(b"\n\r\n ", "<f4")[0]
    for ends in (b"\n", b"\r", b"\r\n"):
        path = save(tmp_path / "a.ply", rows)
        header, end, data = path.read_bytes().partition(b"end_header\n")
        path.write_bytes((header + end).replace(b"\n", ends) + data)
        assert read_vertices(path).columns["x"] == rows["x"]


def test_a_property_may_have_any_letters(tmp_path):
    path = save(
        tmp_path / "a.ply", rfn.append_fields(splat_rows(), "scalar_q", np.arange(5, dtype="f4"), usemask=False)
    )
    path.write_bytes(path.read_bytes().replace(b"scalar_q", "scalar_Größe".encode()))
    assert len(read_splat(path)) == 5
    assert read_vertices(path).columns["scalar_Gr\\xf6\\xdfe"].tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]


@pytest.mark.parametrize(
    ("kind", "top", "told"), [("u1", 255, "whole numbers"), ("f4", 1, "fractions"), ("f8", 1, "fractions")]
)
def test_plain_colours_in_place_of_harmonics_are_taken_and_told(tmp_path, kind, top, told):
    rows, colors = splat_rows(), np.array([[0, 0.2, 1], [1, 0.4, 0], [0.6, 0, 0.8], [1, 1, 1], [0, 0, 0]])
    names = [name for name in NAMES if not name.startswith("f_dc")]
    plain = np.empty(5, [*((name, "f4") for name in names), *((name, kind) for name in ("red", "green", "blue"))])
    for name in names:
        plain[name] = rows[name]
    for name, column in zip(("red", "green", "blue"), colors.T, strict=True):
        plain[name] = column * top
    with pytest.warns(Notice, match=rf"colours are red green blue, {told}, where a splat has f_dc_0..2"):
        found = read_splat(save(tmp_path / "a.ply", plain))
    assert found.sh_degree == 0 and np.allclose(0.5 + SH_C0 * found.sh[:, 0].numpy(), colors, atol=1e-6)
    whole = read_splat(save(tmp_path / "b.ply", rows))
    assert all(torch.equal(getattr(found, name), getattr(whole, name)) for name in found.tensors() if name != "sh")


def test_gaussians_of_mip_splatting_are_widened_and_keep_their_mass(tmp_path):
    """Covariances add, and what a Gaussian holds in all, opacity times volume, stays; a filter of 0 changes nothing."""
    rows, by = splat_rows(), np.array([0.0, 1e-3, 0.3, 1.0, 20.0], "f4")
    rows["opacity"][:3] = 900.0, 12.0, -12.0
    whole = read_splat(save(tmp_path / "a.ply", rows))
    found = read_splat(save(tmp_path / "b.ply", rfn.append_fields(rows, "filter_3D", by, usemask=False)))
    assert found.options == RenderOptions(antialiased=True) and whole.options == RenderOptions()
    before, after = whole.scales.double().exp(), found.scales.double().exp()
    assert torch.allclose(after.square(), before.square() + torch.from_numpy(by)[:, None].double() ** 2, rtol=1e-6)
    masses = [one.opacities.double().sigmoid() * one.scales.double().sum(dim=1).exp() for one in (whole, found)]
    assert torch.allclose(*masses, rtol=1e-5)
    assert torch.equal(found.opacities[0], whole.opacities[0]) and torch.equal(found.scales[0], whole.scales[0])
    assert all(torch.equal(getattr(found, name), getattr(whole, name)) for name in ("means", "quats", "sh"))


def test_a_filter_that_changes_nothing_makes_nothing_infinite(tmp_path):
    rows, by = splat_rows(), np.array([0.0, 1e-12, 0.0, 0.1, 0.1], "f4")
    rows["opacity"][:2] = 900.0
    rows["scale_0"][2] = -np.inf
    path = save(tmp_path / "a.ply", rfn.append_fields(rows, "filter_3D", by, usemask=False))
    with pytest.warns(Notice) as told:
        found = read_splat(path, clean=True)
    assert "0 of its 5 Gaussians are left out and 1 mended: 1 of no size" in str(told[-1].message)
    assert found.opacities[:3].tolist() == rows["opacity"][:3].tolist()


def test_harmonics_come_before_plain_colours(tmp_path):
    rows = splat_rows()
    both = rfn.append_fields(rows, ["red", "green", "blue"], [np.full(5, 9, "u1")] * 3, usemask=False)
    assert torch.equal(read_splat(save(tmp_path / "a.ply", both)).sh, read_splat(save(tmp_path / "b.ply", rows)).sh)


@pytest.mark.parametrize("text", [False, True])
def test_a_truncated_body(tmp_path, text):
    path = save(tmp_path / "a.ply", splat_rows(50), text)
    whole = path.read_bytes()
    for kept in (len(whole) - 200, len(whole) - len(whole) // 3, whole.index(b"end_header\n") + 11):
        path.write_bytes(whole[:kept])
        assert "truncated" in message(path) or "early end-of-" in message(path)


@pytest.mark.parametrize("count", [10**9, 10**17, 10**40])
@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian"])
def test_a_header_that_claims_more_than_the_file_holds_allocates_nothing(tmp_path, count, encoding):
    path = save(tmp_path / "a.ply", splat_rows(3), text=encoding == "ascii")
    path.write_bytes(path.read_bytes().replace(b"element vertex 3", f"element vertex {count}".encode()))
    assert ("truncated" if count < 10**40 else "dimension exceeded") in message(path)


def test_missing_properties_are_named(tmp_path):
    rows = splat_rows()
    kept = np.empty(5, dtype=[(name, "f4") for name in NAMES if name not in ("opacity", "rot_3")])
    for name in kept.dtype.names:
        kept[name] = rows[name]
    assert "lacks the vertex properties opacity, rot_3" in message(save(tmp_path / "a.ply", kept))


def test_values_that_float32_does_not_hold_are_infinite(tmp_path):
    rows = splat_rows(kind="f8")
    rows["y"][[1, 3]], rows["scale_2"][0], rows["opacity"][2] = np.nan, -np.inf, 1e300
    said = message(save(tmp_path / "a.ply", rows))
    assert "4 of its 5 Gaussians are not sound: 2 with NaN in means, 1 of an infinite opacity, 1 of no size" in said


def test_zero_vertices(tmp_path):
    assert "zero vertices" in message(save(tmp_path / "a.ply", splat_rows(0)))


@pytest.mark.parametrize("rest", [1, 8, 44, 72])
def test_a_wrong_number_of_sh_coefficients(tmp_path, rest):
    assert f"{rest} f_rest properties" in message(save(tmp_path / "a.ply", splat_rows(rest=rest)))


def test_a_gap_in_the_sh_coefficients_is_named(tmp_path):
    rows = splat_rows(rest=9)
    rows.dtype.names = tuple("f_rest_11" if name == "f_rest_4" else name for name in rows.dtype.names)
    assert "f_rest_4" in message(save(tmp_path / "a.ply", rows))


def test_zero_rotations_are_counted(tmp_path):
    rows = splat_rows()
    for i in range(4):
        rows[f"rot_{i}"][[0, 4]] = 0
    assert "2 of its 5 Gaussians are not sound: 2 without a rotation;" in message(save(tmp_path / "a.ply", rows))


def test_a_list_among_the_vertex_properties(tmp_path):
    element = PlyElement.describe(splat_rows(), "vertex")
    path = tmp_path / "a.ply"
    PlyData([element], byte_order="<").write(str(path))
    path.write_bytes(path.read_bytes().replace(b"property float opacity", b"property list uchar float opacity"))
    assert "vertex property opacity is a list" in message(path)


def test_a_mesh_keeps_its_vertex_columns(tmp_path):
    vertices = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0)], dtype=[("x", "f4"), ("y", "f4"), ("z", "f4")])
    faces = np.array([([0, 1, 2],)], dtype=[("vertex_indices", "i4", (3,))])
    elements = [PlyElement.describe(faces, "face"), PlyElement.describe(vertices, "vertex")]
    assert isinstance(elements[0].properties[0], PlyListProperty)
    PlyData(elements, byte_order="<").write(str(tmp_path / "a.ply"))
    columns = read_vertices(tmp_path / "a.ply").columns
    assert list(columns) == ["x", "y", "z"] and columns["x"].tolist() == [0, 1, 0]
