"""What packed files may be besides those that are written here: other versions and programs, broken ones, and bombs."""

import gzip
import io
import json
import os
import shutil
import struct
import subprocess
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import numpy.lib.recfunctions as rfn
import pytest
import torch
from export.decoders import READERS, read_spz
from export.scenes import pebble, pictures, psnr
from PIL import Image
from plyfile import PlyData, PlyElement

from gsdistill.core import extras
from gsdistill.core.errors import BadFile, NotInstalled
from gsdistill.core.structs import SH_C0, Gaussians, RenderOptions
from gsdistill.export.compressed_ply import CompressedPly
from gsdistill.export.ply import Ply
from gsdistill.export.sog import Sog
from gsdistill.export.spz import Spz
from gsdistill.scene.formats import spz
from gsdistill.scene.read import open_splat, read_splat

MODULES = Path(os.environ.get("GSDISTILL_NODE_MODULES") or Path(__file__).parents[2] / "browser" / "node_modules")
OTHERS_TOOL = MODULES / "@playcanvas" / "splat-transform" / "bin" / "cli.mjs"
needs_others = pytest.mark.skipif(
    not OTHERS_TOOL.is_file() or not shutil.which("node"), reason="needs node and splat-transform"
)


def refused(path: Path) -> str:
    with pytest.raises(BadFile) as caught:
        read_splat(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ") and "\n" not in said
    return said.removeprefix(f"{path}: ")


# --- .splat


@pytest.mark.parametrize("size", [0, 31, 33, 65])
def test_a_splat_is_of_whole_rows(tmp_path, size):
    path = tmp_path / "a.splat"
    path.write_bytes(bytes(size))
    assert refused(path) == f"not a sound .splat file: {size} bytes, no multiple of 32"


def test_a_splat_of_no_size_or_no_rotation_is_counted(tmp_path):
    row = np.zeros(3, [("means", "<f4", 3), ("deviations", "<f4", 3), ("colours", "u1", 4), ("quats", "u1", 4)])
    row["deviations"], row["quats"] = [[0.0, 1, 1], [1, 1, 1], [-1, 1, 1]], [[255, 128, 128, 128], [128] * 4, [255] * 4]
    (tmp_path / "a.splat").write_bytes(row.tobytes())
    said = refused(tmp_path / "a.splat")
    assert said.startswith("3 of its 3 Gaussians are not sound: 1 with NaN in scales, 1 of no size, 1 without a rotat")


def test_bytes_of_opacity_at_their_ends_are_quite_opaque_and_quite_transparent(tmp_path):
    row = np.zeros(2, [("means", "<f4", 3), ("deviations", "<f4", 3), ("colours", "u1", 4), ("quats", "u1", 4)])
    row["deviations"], row["colours"][:, 3] = 1.0, [0, 255]
    (tmp_path / "a.splat").write_bytes(row.tobytes())
    assert read_splat(tmp_path / "a.splat").opacities.tolist() == [-20.0, 20.0]


# --- .spz


def header(version=3, count=1, degree=0, bits=12) -> bytes:
    return struct.pack("<4sIIBBBB", b"NGSP", version, count, degree, bits, 0, 0)


def spz_2(folder: Path, count: int = 50, degree: int = 2) -> Path:
    """Random bytes in the columns of version 2, whose quaternions are shorter than one."""
    g = np.random.default_rng(0)
    turn = (127.5 + 127.5 * g.uniform(-0.55, 0.55, (count, 3))).round().astype(np.uint8)
    parts = [g.integers(0, 256, (count, n), np.uint8) for n in (9, 1, 3, 3)]
    parts += [turn, g.integers(0, 256, (count, 3 * ((degree + 1) ** 2 - 1)), np.uint8)]
    (folder / "a.spz").write_bytes(gzip.compress(header(2, count, degree) + b"".join(p.tobytes() for p in parts)))
    return folder / "a.spz"


def test_version_2_is_what_an_independent_decoder_finds(tmp_path):
    path = spz_2(tmp_path)
    ours, theirs = open_splat(path).gaussians, read_spz(path)
    assert (ours.opacities.sigmoid() - theirs.opacities.sigmoid()).abs().max() < 1e-6
    assert (ours.quats - theirs.quats).abs().max() < 1e-6 and (ours.sh - theirs.sh).abs().max() < 1e-6
    assert torch.equal(ours.means, theirs.means) and torch.equal(ours.scales, theirs.scales)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"NGSP", "its header is cut off"),
        (b"NGSQ" + header()[4:], "not a splat that is read"),
        (header(1) + bytes(99), "is of SPZ version 1; only versions 2 to 4 are read"),
        (header(5) + bytes(99), "is of SPZ version 5; only versions 2 to 4 are read"),
        (header(3, 0), "its header promises 0 Gaussians"),
        (header(3, 1, 4) + bytes(999), "harmonics of degree 4"),
        (header(3, 1, 0, 25) + bytes(99), "25 bits behind the point"),
        (header(3, 2**32 - 1) + bytes(99), "truncated; its header promises 85,899,345,900 bytes of data, 99 follow"),
        (header(3, 5, 1) + bytes(144), "truncated; its header promises 145 bytes of data, 144 follow"),
    ],
)
def test_an_spz_that_cannot_be_read_is_one_line(tmp_path, data, said):
    for name, content in (("a.spz", gzip.compress(data)), ("b.spz", data)):
        (tmp_path / name).write_bytes(content)
        assert said in refused(tmp_path / name)


ZSTD = b"\x28\xb5\x2f\xfd"  # how a packed stream begins


def stored(data: bytes) -> bytes:
    """A stream of Zstandard with one block, which is not packed; RFC 8878, section 3.1.1."""
    return ZSTD + b"\xa0" + struct.pack("<I", len(data)) + (len(data) << 3 | 1).to_bytes(3, "little") + data


def repeated(times: int, claimed: int | None = None) -> bytes:
    """A stream of zeros in blocks of one byte, ``times`` 65,536 of them, of which its head claims more or less."""
    blocks = [(65536 << 3 | 2 | (i + 1 == times)).to_bytes(3, "little") + b"\0" for i in range(times)]
    return ZSTD + b"\xe0" + struct.pack("<Q", times * 65536 if claimed is None else claimed) + b"".join(blocks)


def spz_4(version_3: bytes, streams=None, records: bytes = b"", change=lambda head, table: None) -> bytes:
    """The same columns as in an unpacked file of version 3, its head and table gone through ``change``."""
    _, _, count, degree, bits, _, _ = struct.unpack_from("<4sIIBBBB", version_3)
    at, parts = 16, []
    for width in filter(None, (9, 1, 3, 3, 4, 3 * ((degree + 1) ** 2 - 1))):
        parts.append(version_3[at : at + count * width])
        at += count * width
    packed = [stored(part) for part in parts] if streams is None else streams
    head = [b"NGSP", 4, count, degree, bits, 2 * bool(records), len(parts), 32 + len(records)]
    table = [[len(stream), len(part)] for stream, part in zip(packed, parts, strict=True)]
    change(head, table)
    rows = b"".join(struct.pack("<QQ", *row) for row in table)
    return struct.pack("<4sIIBBBBI12x", *head) + records + rows + b"".join(packed)


def version_3(folder: Path, count: int = 40, degree: int = 2) -> bytes:
    Spz(frame="rdf").write(pebble(count, degree), folder / "a.spz")
    return gzip.decompress((folder / "a.spz").read_bytes())


def same(one, other) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in one.tensors())


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_version_4_holds_the_columns_of_version_3_each_packed(tmp_path, degree):
    plain = version_3(tmp_path, degree=degree)
    (tmp_path / "b.spz").write_bytes(spz_4(plain))
    (tmp_path / "c.spz").write_bytes(gzip.compress(spz_4(plain)))
    for name in ("b.spz", "c.spz"):
        assert same(read_splat(tmp_path / name), read_splat(tmp_path / "a.spz"))


def test_streams_in_several_frames_are_read(tmp_path):
    plain = version_3(tmp_path, degree=0)
    whole = spz_4(plain)
    at, sizes = 32 + 5 * 16, [struct.unpack_from("<QQ", whole, 32 + 16 * i)[0] for i in range(5)]
    streams = []
    for size in sizes:
        part = whole[at + 12 : at + size]
        streams.append(stored(part[:7]) + stored(part[7:]))
        at += size
    (tmp_path / "b.spz").write_bytes(spz_4(plain, streams))
    assert same(read_splat(tmp_path / "b.spz"), read_splat(tmp_path / "a.spz"))


@pytest.mark.parametrize(("number", "frame"), [(4, "rdf"), (6, "rdf"), (7, "y-up"), (8, "unity"), (15, "z-up")])
@pytest.mark.parametrize("version", [3, 4])
def test_a_record_names_the_axes(tmp_path, number, frame, version):
    """Numbers as nianticlabs/spz has them: 4 right up back, 6 right down front, 7 left up front, 8 right up front."""
    plain = version_3(tmp_path)
    records = struct.pack("<III", 0xADBE0002, 4, 9) + struct.pack("<III", 0xADBE0003, 4, number)
    with_flag = plain[:14] + b"\2" + plain[15:] + records
    (tmp_path / "b.spz").write_bytes(spz_4(plain, records=records) if version == 4 else gzip.compress(with_flag))
    found, numbers = open_splat(tmp_path / "b.spz"), spz.decode(plain, tmp_path / "a.spz", 0)
    assert found.named == frame
    assert same(found.gaussians, numbers if number != 4 else read_splat(tmp_path / "a.spz", "world"))


def test_axes_of_other_numbers_are_refused(tmp_path):
    (tmp_path / "b.spz").write_bytes(spz_4(version_3(tmp_path), records=struct.pack("<III", 0xADBE0003, 4, 1)))
    assert refused(tmp_path / "b.spz") == "its axes are number 1 of SPZ's; only numbers 4, 6, 7, 8, 15 are read"


def in_head(place: int, value: int):
    return lambda head, table: head.__setitem__(place, value)


def in_table(place: int, value: int):
    return lambda head, table: table[2].__setitem__(place, value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (in_head(2, 2**32 - 1), "its 4,294,967,295 Gaussians unpack to far more than it holds"),
        (in_head(6, 5), "its header promises 5 streams from byte 32 on, and harmonics of degree 2 need 6"),
        (in_head(7, 31), "its header promises 6 streams from byte 31 on"),
        (in_head(7, 2**32 - 1), "truncated; its table is not whole"),
        (in_head(2, 41), "a stream of 360 bytes must hold 369"),
        (in_table(1, 2**63), "a stream of 9,223,372,036,854,775,808 bytes must hold 120"),
        (in_table(0, 2**63), "truncated; a stream of 9,223,372,036,854,775,808 bytes is promised, "),
        (in_table(0, 60), "a stream holds less than the 120 bytes promised"),
        (in_table(0, 131), "a stream holds less than the 120 bytes promised"),
        (in_table(0, 133), "a stream cannot be unpacked: "),
    ],
)
def test_a_version_4_that_cannot_be_read_is_one_line(tmp_path, change, said):
    (tmp_path / "b.spz").write_bytes(spz_4(version_3(tmp_path), change=change))
    assert said in refused(tmp_path / "b.spz")


def test_a_version_4_cut_off_anywhere_is_refused(tmp_path):
    whole = spz_4(version_3(tmp_path, 2, 0))
    for size in range(4, len(whole)):
        (tmp_path / "b.spz").write_bytes(whole[:size])
        assert refused(tmp_path / "b.spz")


@pytest.mark.parametrize(
    ("claimed", "said"),
    [
        (None, "a stream holds more than the 360 bytes promised"),
        (360, "a stream cannot be unpacked: "),
        (2**62, "a stream cannot be unpacked: "),
    ],
)
def test_streams_that_hold_more_or_claim_to_take_no_memory(tmp_path, claimed, said):
    """A stream of 64 MB in 4,000 bytes, or one that claims 2^62; what is read of it is what the table promises."""
    plain = version_3(tmp_path)
    streams = [repeated(1000, claimed), *[b""] * 5]
    (tmp_path / "b.spz").write_bytes(spz_4(plain, streams))
    tracemalloc.start()
    assert said in refused(tmp_path / "b.spz")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_without_zstandard_the_line_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "b.spz").write_bytes(spz_4(version_3(tmp_path)))
    monkeypatch.setitem(extras.EXTRAS, "formats", {"gsply": "gsply", "no_such_module": "zstandard"})
    with pytest.raises(NotInstalled) as caught:
        read_splat(tmp_path / "b.spz")
    needed = "reading SPZ of version 4 needs zstandard (the extra 'formats'): pip install zstandard"
    assert str(caught.value) == f"{tmp_path / 'b.spz'}: {needed}"
    assert len(read_splat(tmp_path / "a.spz")) == 40


# --- .compressed.ply


def elements(folder: Path, change, count: int = 300, degree: int = 1) -> Path:
    """A compressed PLY whose tables, by the name of their element, went through ``change``."""
    CompressedPly().write(pebble(count, degree), folder / "a.compressed.ply")
    data = PlyData.read(str(folder / "a.compressed.ply"), mmap=False)
    found = {element.name: element.data for element in data.elements}
    change(found)
    made = [PlyElement.describe(table, name) for name, table in found.items()]
    PlyData(made, byte_order="<", comments=data.comments).write(str(folder / "b.compressed.ply"))
    return folder / "b.compressed.ply"


def without(name: str, *columns: str):
    """A change that takes columns out of a table."""

    def change(found):
        kept = [column for column in found[name].dtype.names if column not in columns]
        found[name] = rfn.repack_fields(found[name][kept])

    return change


def to_floats(found):
    found["vertex"] = found["vertex"].astype([(name, "<f4") for name in found["vertex"].dtype.names])


def test_chunks_of_an_older_file_have_no_bounds_of_colour(tmp_path):
    bounds = [f"{end}_{axis}" for axis in "rgb" for end in ("min", "max")]
    found = open_splat(elements(tmp_path, without("chunk", *bounds))).gaussians
    words = PlyData.read(str(tmp_path / "b.compressed.ply"))["vertex"].data["packed_color"]
    red = (0.5 + SH_C0 * found.sh[:, 0, 0].numpy()) * 255
    assert np.allclose(red, words >> 24, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found.pop("chunk"), "its chunks lack min_x, min_y"),
        (without("chunk", "max_scale_y", "min_g"), "its chunks lack max_scale_y, min_g"),
        (lambda found: found.update(chunk=found["chunk"][:1]), "it has 1 chunks, its vertices need 2"),
        (lambda found: found.update(sh=found["sh"][:9]), "its element 'sh' must hold"),
        (without("sh", "f_rest_4"), "9, 24 or 45 properties"),
        (to_floats, "its vertices have no 'packed_position' of type uint"),
        (without("vertex", "packed_scale"), "its vertices have no 'packed_scale' of type uint"),
    ],
)
def test_a_compressed_ply_that_cannot_be_read_is_one_line(tmp_path, change, said):
    assert said in refused(elements(tmp_path, change))


def test_bounds_that_are_no_numbers_are_no_gaussians(tmp_path):
    def spoil(found):
        found["chunk"]["max_y"][1] = np.nan

    assert refused(elements(tmp_path, spoil)).startswith("44 of its 300 Gaussians are not sound: 44 with NaN in means")


@pytest.mark.parametrize("degree", [0, 2])
def test_what_fills_up_chunks_is_left_out_again(tmp_path, degree):
    scene = pebble(700, degree)
    scene.means[:3] = torch.tensor([50.0, -20.0, 3.0])
    told = CompressedPly().write(scene, tmp_path / "a.compressed.ply")
    assert any("invisible Gaussians are added" in line for line in told)
    found = read_splat(tmp_path / "a.compressed.ply")
    assert len(found) == 700 < len(READERS["compressed-ply"](tmp_path / "a.compressed.ply"))
    order = torch.cdist(scene.means.double(), found.means.double()).argmin(dim=1)
    assert len(order.unique()) > 690 and (found.means[order] - scene.means).abs().max() < 1e-3
    data = (tmp_path / "a.compressed.ply").read_bytes()
    where = data.index(b"fill up chunks: ") + 16
    other = b"1" if data[where : where + 1] != b"1" else b"2"
    (tmp_path / "b.compressed.ply").write_bytes(data[:where] + other + data[where + 1 :])
    assert len(read_splat(tmp_path / "b.compressed.ply")) > 700  # a count that is not so is not trusted


# --- .sog


def bundle(folder: Path, change=lambda meta, files: None, degree: int = 1, **packing) -> Path:
    """A bundle whose description and files went through ``change``."""
    Sog().write(pebble(50, degree), folder / "a.sog")
    with zipfile.ZipFile(folder / "a.sog") as given:
        files = {name: given.read(name) for name in given.namelist()}
    meta = json.loads(files.pop("meta.json"))
    change(meta, files)
    with zipfile.ZipFile(folder / "b.sog", "w", **packing) as made:
        made.writestr("meta.json", json.dumps(meta))
        for name, data in files.items():
            made.writestr(name, data)
    return folder / "b.sog"


def picture(size: tuple[int, int], opacity: int = 255) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", size, (1, 2, 3, opacity)).save(buffer, format="WEBP", lossless=True)
    return buffer.getvalue()


def test_a_deflated_bundle_and_png_are_read_too(tmp_path):
    def to_png(meta, files):
        for name in list(files):
            buffer = io.BytesIO()
            Image.open(io.BytesIO(files[name])).save(buffer, format="PNG")
            files[name] = buffer.getvalue()

    path = bundle(tmp_path, to_png, 3, compression=zipfile.ZIP_DEFLATED)
    one, other = read_splat(path), read_splat(tmp_path / "a.sog")
    assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in one.tensors())


def test_the_first_version_has_bounds_in_place_of_codebooks(tmp_path):
    """Lerps in 255 steps, opacity as a logit, the degree from the width of the palette, as gsply reads it."""

    def first(meta, files):
        count = meta.pop("count")
        meta.pop("version")
        for name, width in (("scales", 3), ("sh0", 4)):
            low = np.linspace(-3, -1, width)
            meta[name] = {"shape": [count, width], "mins": low.tolist(), "maxs": (low + 2).tolist(),
                          "files": meta[name]["files"]}  # fmt: skip
        meta["shN"] = {"mins": -0.5, "maxs": 0.75, "quantization": 8, "files": meta["shN"]["files"]}
        meta["means"]["shape"] = [count, 3]

    path = bundle(tmp_path, first, 2)
    found, second = open_splat(path).gaussians, open_splat(tmp_path / "a.sog").gaussians
    with zipfile.ZipFile(path) as given:
        pixels = {
            name: np.asarray(Image.open(io.BytesIO(given.read(f"{name}.webp"))).convert("RGBA"))
            for name in ("scales", "sh0", "shN_labels", "shN_centroids")
        }
    scales, colours, labels = (pixels[n].reshape(-1, 4)[:50].astype(float) for n in ("scales", "sh0", "shN_labels"))
    assert np.allclose(found.scales.numpy(), np.linspace(-3, -1, 3) + 2 * scales[:, :3] / 255, atol=1e-6)
    values = np.linspace(-3, -1, 4) + 2 * colours / 255
    assert np.allclose(found.sh[:, 0].numpy(), values[:, :3], atol=1e-6)
    assert np.allclose(found.opacities.numpy(), values[:, 3], atol=1e-6)
    entries = pixels["shN_centroids"][..., :3].reshape(-1, 8, 3)[(labels[:, 0] + 256 * labels[:, 1]).astype(int)]
    assert np.allclose(found.sh[:, 1:].numpy(), -0.5 + 1.25 * entries / 255, atol=1e-6)
    assert torch.equal(found.means, second.means) and torch.equal(found.quats, second.quats)


def put(*keys):
    """A change of the description: the last of the keys is what the others lead to."""

    def change(meta, files):
        *path, key, value = keys
        at = meta
        for step in path:
            at = at[step]
        at[key] = value

    return change


def replaced(name: str, data: bytes):
    return lambda meta, files: files.update({name: data})


def drawn(name: str, *how):
    """A change that draws the picture only when it is needed, for a large one takes seconds."""
    return lambda meta, files: files.update({name: picture(*how)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("version", 3), "is of SOG version 3; only versions 1 and 2 are read"),
        (put("count", 10**12), "a picture of 'means' has 56 pixels for 1,000,000,000,000 Gaussians"),
        (put("count", 0), "it holds 0 Gaussians"),
        (put("count", "9"), "it holds '9' Gaussians"),
        (put("means", None), "meta.json has no part 'means'"),
        (put("means", "files", ["x.webp"]), "'x.webp' is missing"),
        (put("means", "files", ["../../x"]), "'../../x' is missing"),
        (put("means", "files", []), "its part 'means' names no file"),
        (put("means", "mins", [0, 1]), "meta.json must have 3 numbers under means.mins"),
        (put("scales", "codebook", [0] * 255), "256 numbers under scales.codebook"),
        (put("sh0", "codebook", [float("nan")] * 256), "256 numbers under sh0.codebook"),
        (put("shN", "bands", 2), "holds no harmonics of degree 2"),
        (put("asset", {"gsdistill_frame": "up"}), "names the frame 'up'"),
        (replaced("quats.webp", b"RIFF"), "'quats.webp' is no sound picture"),
        (drawn("quats.webp", (8, 8), 251), "its rotations are of another kind"),
        (drawn("sh0.webp", (4, 4)), "a picture of 'sh0' has 16 pixels for 50 Gaussians"),
        (drawn("shN_labels.webp", (8, 8)), "its palette has 64 entries, and entry 513 is asked for"),
        (drawn("sh0.webp", (9000, 9000)), "its pictures unpack to far more than it holds"),
    ],
)  # fmt: skip
def test_a_sog_that_cannot_be_read_is_one_line(tmp_path, change, said):
    assert said in refused(bundle(tmp_path, change))


@pytest.mark.slow
def test_a_sog_of_many_that_are_alike_but_for_their_places_is_read(tmp_path):
    count = 70_000
    given = Gaussians(
        means=torch.rand(count, 3, generator=torch.Generator().manual_seed(0)),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(count, 1),
        scales=torch.full((count, 3), -5.0),
        opacities=torch.full((count,), 2.0),
        sh=torch.zeros(count, 16, 3),
    )
    Sog().write(given, tmp_path / "a.sog")
    found = read_splat(tmp_path / "a.sog")
    assert (len(found), found.sh_degree) == (count, 3)
    assert 4 * count * 59 > 32 * (tmp_path / "a.sog").stat().st_size  # many times what the file has
    assert torch.allclose(found.means.sort(dim=0).values, given.means.sort(dim=0).values, atol=1e-4)


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_that_unpack_without_bounds_are_refused(tmp_path, packing):
    assert "is packed in a way that is not read" in refused(bundle(tmp_path, compression=packing))


def test_a_member_that_unpacks_to_far_more_is_refused(tmp_path):
    path = bundle(tmp_path, replaced("quats.webp", bytes(40 << 20)), compression=zipfile.ZIP_DEFLATED)
    assert "'quats.webp' unpacks to more than" in refused(path)


def test_a_zip_that_is_none_or_is_cut_off(tmp_path):
    whole = bundle(tmp_path).read_bytes()
    for data in (b"PK\3\4", whole[:-30], whole[:100], whole[:60] + bytes(200) + whole[260:]):
        (tmp_path / "c.sog").write_bytes(data)
        assert "not a sound .sog file" in refused(tmp_path / "c.sog")


# --- made for antialiasing


@pytest.mark.filterwarnings("error::gsdistill.core.errors.Notice")
def test_what_was_made_for_antialiasing_is_drawn_so(tmp_path):
    plain = version_3(tmp_path)
    flagged = plain[:14] + b"\1" + plain[15:]
    (tmp_path / "three.spz").write_bytes(gzip.compress(flagged))
    (tmp_path / "four.spz").write_bytes(spz_4(flagged, change=in_head(5, 1)))
    for path in (tmp_path / "three.spz", tmp_path / "four.spz", bundle(tmp_path, put("antialias", True))):
        assert read_splat(path).options == RenderOptions(antialiased=True)


@pytest.mark.filterwarnings("error::gsdistill.core.errors.Notice")
def test_what_was_not_is_drawn_as_usual(tmp_path):
    (tmp_path / "four.spz").write_bytes(spz_4(version_3(tmp_path)))
    for path in (tmp_path / "a.spz", tmp_path / "four.spz", bundle(tmp_path)):
        assert read_splat(path).options == RenderOptions()


# --- files of another program


@pytest.mark.slow
@needs_others
@pytest.mark.parametrize(
    ("extension", "flags", "least"),
    [(".compressed.ply", (), 44), (".sog", ("-g", "cpu"), 40), (".spz", (), 35), (".glb", (), 100)],
)
@pytest.mark.parametrize("degree", [0, 3])
def test_files_of_another_program_are_read(tmp_path, extension, flags, least, degree):
    """splat-transform packs harmonics in fewer bits than is done here, and names no axes."""
    stone = pebble(500, degree)
    Ply().write(stone, tmp_path / "a.ply")
    made = tmp_path / f"b{extension}"
    subprocess.run(["node", OTHERS_TOOL, "-q", *flags, tmp_path / "a.ply", made], check=True)
    content = open_splat(made)
    assert content.named is None and len(content.gaussians) == 500
    assert psnr(pictures(content.in_world()), pictures(stone)) > least


@needs_others
@pytest.mark.parametrize("degree", [0, 3])
def test_an_spz_of_version_4_of_another_program_is_its_version_3(tmp_path, degree):
    Ply().write(pebble(500, degree), tmp_path / "a.ply")
    for version in "34":
        path = tmp_path / f"{version}.spz"
        subprocess.run(["node", OTHERS_TOOL, "-q", "--spz-version", version, tmp_path / "a.ply", path], check=True)
    assert (tmp_path / "4.spz").read_bytes()[:8] == b"NGSP\4\0\0\0"
    assert same(read_splat(tmp_path / "4.spz"), read_splat(tmp_path / "3.spz"))
