"""Readers of the packed formats, written from their published layouts and sharing nothing with what writes them.

Each returns Gaussians in the axes of the file, of an SPZ in those that a PLY of the same scene has.

compressed.ply: PlayCanvas, Compressed PLY. splat: K. Kwok, antimatter15/splat. spz: Niantic Spatial, nianticlabs/spz.
sog: PlayCanvas, The SOG Format, version 2. glb: Khronos, KHR_gaussian_splatting.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from plyfile import PlyData

from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.scene.ply import content_of, read_vertices
from gsdistill.scene.turn import turned

KHR = "KHR_gaussian_splatting"


def gaussians(means, quats, scales, alphas, sh) -> Gaussians:
    """Arrays as Gaussians; ``alphas`` are opacities 0..1, of which 0 and 1 become logits of -16 and 16."""
    a = np.clip(np.asarray(alphas, np.float64), 1e-7, 1 - 1e-7)
    arrays = (means, quats, scales, np.log(a / (1 - a)), sh)
    return Gaussians(*(torch.from_numpy(np.ascontiguousarray(array, np.float32)) for array in arrays))


def with_largest(rest: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Unit quaternions [N, 4] from three components, and the place of the largest, positive and left out."""
    largest = np.sqrt(np.clip(1 - np.square(rest).sum(1), 0, 1))
    quats = np.empty((len(rest), 4))
    for i in range(4):
        here = place == i
        quats[here] = np.insert(rest[here], i, largest[here], axis=1)
    return quats


def bits(words: np.ndarray, *places: tuple[int, int]) -> np.ndarray:
    """Fields of 32-bit words, (lowest bit, number of bits) each, as [N, fields] in 0..1."""
    return np.stack([(words >> low & (1 << n) - 1) / ((1 << n) - 1) for low, n in places], axis=1)


def read_compressed_ply(path: Path) -> Gaussians:
    """Chunks of 256 share their bounds; 11-10-11 bits of position and scale, 8 of colour and opacity, 2-10-10-10 of
    rotation w x y z; higher harmonics in 8 bits from -4 to 4."""
    data = PlyData.read(str(path))
    chunks, rows = data["chunk"].data, data["vertex"].data
    of = np.arange(len(rows)) // 256
    assert len(chunks) == of[-1] + 1

    def between(stem: str, names: str, share: np.ndarray) -> np.ndarray:
        low, high = (
            np.stack([chunks[f"{end}_{stem}{name}"][of] for name in names], 1).astype(float) for end in ("min", "max")
        )
        return low * (1 - share) + high * share

    wide = ((21, 11), (11, 10), (0, 11))
    rgba = bits(rows["packed_color"], (24, 8), (16, 8), (8, 8), (0, 8))
    rest = (bits(rows["packed_rotation"], (20, 10), (10, 10), (0, 10)) - 0.5) * np.sqrt(2)
    sh = ((between("", "rgb", rgba[:, :3]) - 0.5) / SH_C0)[:, None]
    if "sh" in data:
        table = np.stack([data["sh"].data[p.name] for p in data["sh"].properties], 1).astype(float)
        higher = np.where(table == 0, 0, np.where(table == 255, 1, (table + 0.5) / 256)) * 8 - 4
        sh = np.concatenate([sh, higher.reshape(len(rows), 3, -1).transpose(0, 2, 1)], 1)
    means, scales = (
        between(stem, "xyz", bits(rows[name], *wide))
        for stem, name in (("", "packed_position"), ("scale_", "packed_scale"))
    )
    return gaussians(means, with_largest(rest, rows["packed_rotation"] >> 30), scales, rgba[:, 3], sh)


def read_splat(path: Path) -> Gaussians:
    """32 bytes: means and scales as floats, red green blue opacity and w x y z as bytes."""
    rows = np.fromfile(
        path, np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quats", "u1", 4)])
    )
    rgba, quats = rows["rgba"] / 255, (rows["quats"] - 128.0) / 128
    return gaussians(rows["means"], quats, np.log(rows["scales"]), rgba[:, 3], ((rgba[:, :3] - 0.5) / SH_C0)[:, None])


def read_spz(path: Path) -> Gaussians:
    """Gzipped columns, versions 2 and 3; axes right, up, back."""
    raw = gzip.decompress(path.read_bytes())
    magic, version, count, degree, fraction, flags, reserved = struct.unpack_from("<4sIIBBBB", raw)
    assert magic == b"NGSP" and version in (2, 3) and flags == reserved == 0
    at, K = 16, (degree + 1) ** 2 - 1

    def column(width: int) -> np.ndarray:
        nonlocal at
        start, at = at, at + count * width
        return np.frombuffer(raw, np.uint8, count * width, start).reshape(count, width)

    b = column(9).reshape(count, 3, 3).astype(np.int32)
    means = ((b[..., 0] << 8 | b[..., 1] << 16 | b[..., 2] << 24) >> 8) / (1 << fraction)
    alphas, colours, scales = column(1)[:, 0] / 255, column(3) / 255, column(3) / 16 - 10
    if version == 2:
        xyz = column(3) / 127.5 - 1
        xyzw = np.concatenate([xyz, np.sqrt(np.clip(1 - np.square(xyz).sum(1, keepdims=True), 0, 1))], 1)
    else:
        words = column(4).copy().view("<u4")[:, 0]
        sizes = bits(words, (20, 9), (10, 9), (0, 9)) / np.sqrt(2)
        signs = 1 - 2 * bits(words, (29, 1), (19, 1), (9, 1))
        xyzw = with_largest(sizes * signs, words >> 30)
    higher = (column(3 * K).reshape(count, K, 3) - 128.0) / 128
    assert at == len(raw)
    sh = np.concatenate([((colours - 0.5) / 0.15)[:, None], higher], 1)
    found = gaussians(means, np.roll(xyzw, 1, axis=1), scales, alphas, sh)
    return turned(found, torch.diag(torch.tensor([1.0, -1.0, -1.0])))


def read_sog(path: Path) -> Gaussians:
    """A ZIP of lossless pictures and a description: 16-bit positions on a logarithmic scale, codebooks of 256 entries
    for scales and colours, and a palette for all higher harmonics of a Gaussian."""
    with zipfile.ZipFile(path) as bundle:
        meta = json.loads(bundle.read("meta.json"))
        assert meta["version"] == 2

        def picture(name: str) -> np.ndarray:
            return np.asarray(Image.open(io.BytesIO(bundle.read(name))).convert("RGBA"))

        def pixels(part: str, file: int = 0) -> np.ndarray:
            return picture(meta[part]["files"][file]).reshape(-1, 4)[: meta["count"]].astype(int)

        low, high = np.array(meta["means"]["mins"]), np.array(meta["means"]["maxs"])
        logs = low + (high - low) * ((pixels("means") + (pixels("means", 1) << 8))[:, :3] / 65535)
        scales = np.array(meta["scales"]["codebook"])[pixels("scales")[:, :3]]
        q, colours = pixels("quats"), pixels("sh0")
        assert (q[:, 3] >= 252).all()
        quats = with_largest((q[:, :3] / 255 * 2 - 1) / np.sqrt(2), q[:, 3] - 252)
        sh = np.array(meta["sh0"]["codebook"])[colours[:, :3]][:, None]
        if "shN" in meta:
            labels = pixels("shN", 1)
            entry, K = labels[:, 0] + (labels[:, 1] << 8), (meta["shN"]["bands"] + 1) ** 2 - 1
            palette = picture(meta["shN"]["files"][0])[..., :3]
            assert palette.shape[1] == 64 * K and entry.max() < meta["shN"]["count"]
            higher = np.array(meta["shN"]["codebook"])[palette.reshape(-1, K, 3)[entry].astype(int)]
            sh = np.concatenate([sh, higher], 1)
    return gaussians(np.sign(logs) * np.expm1(np.abs(logs)), quats, scales, colours[:, 3] / 255, sh)


def read_plain_ply(path: Path) -> Gaussians:
    """The INRIA layout as it stands, its axes not turned; opacities may be infinite."""
    vertices = read_vertices(path)
    columns = {name: np.clip(column, -1e4, 1e4) for name, column in vertices.columns.items()}
    return content_of(replace(vertices, columns=columns, frame=None)).in_world("world")


def glb_chunks(path: Path) -> tuple[dict, bytes]:
    """The JSON and the numbers of a GLB file, its frame checked on the way."""
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data)) and length % 4 == 0
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and size % 4 == 0
    rest, second = struct.unpack_from("<I4s", data, 20 + size)
    assert second == b"BIN\0" and rest % 4 == 0 and 28 + size + rest == len(data)
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def glb_attributes(path: Path) -> dict[str, np.ndarray]:
    """The attributes of the one primitive; whole numbers as shares of their type's greatest."""
    document, numbers = glb_chunks(path)
    found = {}
    for name, place in document["meshes"][0]["primitives"][0]["attributes"].items():
        accessor = document["accessors"][place]
        view = document["bufferViews"][accessor["bufferView"]]
        kind = np.dtype({5121: "u1", 5126: "<f4"}[accessor["componentType"]])
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        values = np.frombuffer(numbers, kind, accessor["count"] * width, view["byteOffset"]).reshape(-1, width)
        assert values.nbytes == view["byteLength"] and accessor.get("normalized", False) == (kind.kind == "u")
        found[name] = values if kind.kind == "f" else values / np.iinfo(kind).max
    return found


def read_glb(path: Path) -> Gaussians:
    """The splat of a file, in the file's axes."""
    found = {
        name.removeprefix(f"{KHR}:"): torch.from_numpy(value.copy()) for name, value in glb_attributes(path).items()
    }
    degree = max(int(name[10]) for name in found if name.startswith("SH_DEGREE_"))
    bands = [found[f"SH_DEGREE_{band}_COEF_{n}"] for band in range(degree + 1) for n in range(2 * band + 1)]
    return Gaussians(
        means=found["POSITION"],
        quats=found["ROTATION"].roll(1, dims=1),
        scales=found["SCALE"].log(),
        opacities=found["OPACITY"][:, 0].logit(),
        sh=torch.stack(bands, dim=1),
    )


READERS: dict[str, Callable[[Path], Gaussians]] = {
    "ply": read_plain_ply,
    "glb": read_glb,
    "compressed-ply": read_compressed_ply,
    "splat": read_splat,
    "spz": read_spz,
    "sog": read_sog,
}
