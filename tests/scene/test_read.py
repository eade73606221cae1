"""One door for all formats: files are told by their bytes, axes by name or custom, and what is none in one line."""

import gzip
import shutil
from pathlib import Path

import pytest
import torch
from export.scenes import pebble
from scene.written import written

from gsdistill.core.errors import BadFile, Notice
from gsdistill.core.frames import FRAMES
from gsdistill.core.structs import Gaussians
from gsdistill.export.settings import extensions
from gsdistill.scene.init.ply import Ply
from gsdistill.scene.read import EXTENSIONS, may_be_splat, open_splat, read_splat
from gsdistill.scene.turn import from_frame

CHAIR = Path(__file__).parents[1] / "data" / "chair.ply"
NAMELESS = (".splat", ".spz")  # which have no room for the name of their axes

every_format = pytest.mark.parametrize("extension", EXTENSIONS)


def equal(one: Gaussians, other: Gaussians) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in one.tensors())


def test_every_format_that_is_written_is_read():
    assert set(EXTENSIONS) == set(extensions())


@every_format
@pytest.mark.parametrize("frame", FRAMES)
def test_the_axes_of_a_file_make_no_difference(tmp_path, extension, frame):
    """Up to half a step of what is written along other axes."""
    scene = pebble(64, 0)
    path = written(tmp_path, extension, scene, frame)
    found = read_splat(path, frame if extension in NAMELESS else None)
    order = torch.cdist(scene.means, found.means).argmin(dim=1)
    assert (found.means[order] - scene.means).abs().max() < 1e-3 and order.unique().numel() == len(found) == 64


@every_format
def test_a_file_names_its_axes_where_it_can_and_has_its_formats_usual_ones_otherwise(tmp_path, extension):
    path = written(tmp_path, extension, pebble(9, 0), "z-up")
    found = open_splat(path)
    usual = {".ply": "world", ".glb": "y-up"}.get(extension, "rdf")
    assert (found.named, found.usual) == (None if extension in NAMELESS else "z-up", usual)
    if extension in NAMELESS:
        assert equal(read_splat(path), from_frame(found.gaussians, "rdf"))
    else:
        with pytest.raises(BadFile, match="its header names the frame 'z-up', not 'unity'"):
            read_splat(path, "unity")


@every_format
def test_packed_by_gzip_once_or_twice_is_the_same(tmp_path, extension):
    path = written(tmp_path, extension, pebble(40, 1))
    packed = tmp_path / f"b{extension}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert equal(read_splat(packed), read_splat(path))
    if extension != ".spz":  # which is packed itself
        packed.write_bytes(gzip.compress(packed.read_bytes()))
        assert equal(read_splat(packed), read_splat(path))


@pytest.mark.parametrize("extension", [extension for extension in EXTENSIONS if extension != ".splat"])
def test_a_wrong_name_does_no_harm(tmp_path, extension):
    path = written(tmp_path, extension, pebble(40, 1))
    for name in ("b", "b.splat", "b.ply", "b.spz"):
        shutil.copy(path, tmp_path / name)
        assert equal(read_splat(tmp_path / name), read_splat(path))


def test_the_folder_of_a_run_is_its_splat(tmp_path):
    shutil.copy(CHAIR, tmp_path / "gaussians.ply")
    assert equal(read_splat(tmp_path), read_splat(CHAIR))
    assert equal(Ply(path=tmp_path).create("", torch.Generator()), read_splat(CHAIR))


@every_format
def test_a_run_starts_from_any_format(tmp_path, extension):
    path = written(tmp_path, extension, pebble(40, 0), "z-up")
    frame = "z-up" if extension in NAMELESS else None
    assert equal(Ply(path=path, frame=frame).create("", torch.Generator()), read_splat(path, frame))


@pytest.mark.parametrize("content", [b"", b"solid cube", b"\x89PNG\r\n", b"pl", bytes(64)])
@pytest.mark.parametrize("name", ["a", "a.spz", "a.glb", "a.obj"])
def test_what_is_none_of_them_is_told_what_is_read(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadFile) as caught:
        read_splat(tmp_path / name)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / name}: not a splat that is read") and "\n" not in said
    assert said.endswith("Known formats: .compressed.ply, .glb, .ply, .sog, .splat, .spz, each also gzipped")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(BadFile, match=r"a\.spz: cannot be read: No such file"):
        read_splat(tmp_path / "a.spz")
    with pytest.raises(BadFile, match=r"is a folder without gaussians\.ply"):
        read_splat(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(BadFile, match=r"the run in .* has no gaussians\.ply yet; the files in its snapshots/ are"):
        read_splat(tmp_path)


def test_gzip_that_is_broken_or_a_bomb_is_refused(tmp_path):
    path = tmp_path / "a.ply.gz"
    whole = gzip.compress(CHAIR.read_bytes())
    for data, said in ((whole[:-40], "end-of-stream"), (whole[:-4] + b"abcd", "length"), (whole[:3] + b"\xff", "")):
        path.write_bytes(data)
        with pytest.raises(BadFile, match=rf"a\.ply\.gz: cannot be unpacked: .*{said}"):
            read_splat(path)
    path.write_bytes(gzip.compress(bytes(20 << 20)))
    with pytest.raises(BadFile, match="cannot be unpacked: it holds more than 16,777,216 bytes"):
        read_splat(path)


@pytest.mark.parametrize("extension", [".ply", ".splat", ".glb"])
def test_clean_reaches_every_format_that_can_hold_what_is_no_number(tmp_path, extension):
    path = written(tmp_path, extension, pebble(8, 0))
    data = bytearray(path.read_bytes())
    start = {".ply": data.find(b"end_header\n") + 11, ".splat": 0, ".glb": data.find(b"BIN\0") + 4}[extension]
    data[start : start + 4] = b"\0\0\xc0\x7f"
    path.write_bytes(data)
    with pytest.raises(BadFile, match="1 of its 8 Gaussians are not sound: 1 with NaN in means; --clean"):
        read_splat(path)
    with pytest.warns(Notice, match="1 of its 8 Gaussians are left out and 0 mended: 1 with NaN in means"):
        assert len(read_splat(path, clean=True)) == 7
    with pytest.warns(Notice):
        assert len(Ply(path=path, clean=True).create("", torch.Generator())) == 7


def test_of_a_folder_full_of_files_what_may_be_a_splat(tmp_path):
    def kept(name: str, data: bytes) -> bool:
        (tmp_path / name).write_bytes(data)
        return may_be_splat(tmp_path / name)

    assert all(kept(name, b"cut") for name in ("a.ply", "a.PLY.gz", "a.spz", "a.sog", "a.splat", "a.compressed.ply"))
    assert kept("a", b"ply\n") and kept("a", b"NGSP") and kept("a", b'glTF {"KHR_gaussian_splatting"')
    assert not any(kept(name, data) for name, data in (("a.npz", b"PK\3\4"), ("a.json", b"{}"), ("a.glb", b"glTF {}")))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_splat_of_any_name_may_be_one_exactly_where_it_is_read(tmp_path, extension, packed):
    """All but .splat, which has nothing but its name."""
    data = written(tmp_path, extension, pebble(8, 0)).read_bytes()
    if extension == ".glb":  # which says late what it holds
        text = data[20 : 20 + int.from_bytes(data[12:16], "little")]
        text = b'{"copyright": "' + b"x" * 100_000 + b'", ' + text[1:] + b" " * (-(len(text) + 100_016) % 4)
        parts = (data[:8], len(data).to_bytes(4, "little"), len(text).to_bytes(4, "little"), b"JSON", text)
        data = b"".join(parts) + data[20 + int.from_bytes(data[12:16], "little") :]
    path = tmp_path / "x.bin"
    path.write_bytes(gzip.compress(data) if packed else data)
    assert may_be_splat(path) == (extension != ".splat")
    if extension != ".splat":
        assert len(read_splat(path)) == 8
