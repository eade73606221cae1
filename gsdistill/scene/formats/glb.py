"""Reading binary glTF 2.0 with KHR_gaussian_splatting: all splats, placed as the scene's nodes say.

Attributes of a point primitive, by the extension's name: ROTATION, the quaternion x y z w; SCALE, standard deviations;
OPACITY, 0..1; SH_DEGREE_l_COEF_n, coefficient m = n - l of degree l, red green blue; and POSITION, the mean. Normalised
integers stand for 0..1 or -1..1. In place of attributes there may be an SPZ file
(KHR_gaussian_splatting_compression_spz_2), its numbers in the axes of the node.

Nodes may move, turn, mirror and scale evenly; uneven scaling, which would give each Gaussian new axes, is refused.
Other content, such as meshes, is ignored. trimesh, which reads glTF meshes for us, drops these attributes.
Source: Khronos, KHR_gaussian_splatting; glTF 2.0 specification, sections 3.5, 3.6 and 4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Float

from gsdistill.core.errors import BadFile
from gsdistill.core.failing import failing_as
from gsdistill.core.structs import Gaussians
from gsdistill.disk.read import brief, most_unpacked, parse_json, unpacked
from gsdistill.scene.content import Content, frame_of, from_arrays, options_of
from gsdistill.scene.edit import join
from gsdistill.scene.formats import spz
from gsdistill.scene.turn import turned

__all__ = ["COLOR_SPACE", "COMPONENTS", "EXTENSION", "KERNEL", "MAGIC", "SHAPES", "bands", "describes_splat", "read"]

MAGIC = b"glTF"
EXTENSION, PACKED = "KHR_gaussian_splatting", "KHR_gaussian_splatting_compression_spz_2"
KERNEL, COLOR_SPACE = "ellipse", "srgb_rec709_display"  # the only kernel, and the colours that we blend in
COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5126: "<f4"}
SHAPES = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
EVEN = 1e-3  # how far the axes of a node may be from equal length and right angles, as a share of its scale


def bands(degree: int) -> list[str]:
    """The names of the harmonics' attributes up to a degree, in order."""
    return [f"{EXTENSION}:SH_DEGREE_{band}_COEF_{n}" for band in range(degree + 1) for n in range(2 * band + 1)]


def read(data: bytes, path: Path) -> Content:
    """Return all splats of a file as one.

    Raises:
        BadFile: it is broken, holds no splat, keeps its numbers elsewhere, or has colours or nodes that are not read.
        NotInstalled: it holds SPZ of version 4, and zstandard is missing.
    """
    with failing_as(BadFile, f"{path}: not a sound .glb file"):
        document, numbers = _chunks(data, path)
        return _Scene(document, numbers, path, most_unpacked(len(data))).content()


def describes_splat(file: BinaryIO) -> bool:
    """Whether the JSON of a file, however long, names the extension."""
    start = file.read(20)
    return EXTENSION.encode() in start + file.read(int.from_bytes(start[12:16], "little"))


def _chunks(data: bytes, path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON and the binary chunk of a file; the latter may be empty."""
    _, version, _, size, kind = struct.unpack_from("<4sIII4s", data)
    if version != 2:
        raise BadFile(f"{path}: is of glTF version {version}; only version 2 is read")
    if kind != b"JSON" or len(data) < 20 + size:
        raise BadFile(f"{path}: truncated, or not a sound .glb file; its JSON is not whole")
    rest = data[20 + size :]
    length, second = struct.unpack_from("<I4s", rest) if len(rest) >= 8 else (0, b"BIN\0")
    if second != b"BIN\0" or len(rest) < 8 + length:
        raise BadFile(f"{path}: truncated; its numbers are not whole")
    return parse_json(data[20 : 20 + size].decode("utf-8-sig"), f"{path}: its JSON"), rest[8 : 8 + length]


class _Scene:
    """The document of one file and its binary chunk; ``room`` is how many bytes its splats may take unpacked."""

    def __init__(self, document: Mapping[str, Any], numbers: bytes, path: Path, room: int) -> None:
        self._document, self._numbers, self._path, self._room = document, numbers, path, room

    def content(self) -> Content:
        """Return all splats as one, in the axes of the file."""
        parts = [
            _placed(self._read_splat(primitive), matrix, self._path)
            for mesh, matrix in self._shown()
            for primitive in self._document["meshes"][mesh]["primitives"]
            if EXTENSION in primitive.get("extensions", {})
        ]
        if not parts:
            hint = "; a mesh is read by --init mesh" if self._document.get("meshes") else ""
            raise BadFile(f"{self._path}: holds no splat: nothing in it has the extension {EXTENSION}{hint}")
        whole, extras = join(parts), self._document.get("asset", {}).get("extras")
        own = options_of(extras, self._path)
        options = replace(own, antialiased=own.antialiased or whole.options.antialiased)
        return Content(self._path, replace(whole, options=options), frame_of(extras, self._path), "y-up")

    def _shown(self) -> Iterator[tuple[int, Float[np.ndarray, "4 4"]]]:
        """The mesh of each node of the scene, with the matrix from the node to the scene."""
        nodes, scenes = self._document.get("nodes", []), self._document.get("scenes", [])
        if scenes:
            roots = scenes[self._document.get("scene", 0)].get("nodes", [])
        else:  # the nodes that are no child; if all are children, there is a cycle, which is refused below
            children = {child for node in nodes for child in node.get("children", [])}
            roots = [place for place in range(len(nodes)) if place not in children] or range(len(nodes))
        waiting, seen = [(root, np.eye(4)) for root in roots], set()
        while waiting:
            place, above = waiting.pop()
            if place in seen:
                raise BadFile(f"{self._path}: not a sound .glb file; its node {brief(place)} hangs in two places")
            seen.add(place)
            matrix = above @ _matrix(nodes[place])
            if "mesh" in nodes[place]:
                yield nodes[place]["mesh"], matrix
            waiting += [(child, matrix) for child in nodes[place].get("children", [])]

    def _read_splat(self, primitive: Mapping[str, Any]) -> Gaussians:
        """Return the splat of one primitive, in the axes of its node."""
        extension = primitive["extensions"][EXTENSION]
        for key, supported in (("kernel", KERNEL), ("colorSpace", COLOR_SPACE)):
            if extension.get(key, supported) != supported:
                raise BadFile(f"{self._path}: its {key} is {brief(extension[key])}; only '{supported}' is read")
        packed = {**primitive["extensions"], **extension.get("extensions", {})}.get(PACKED)
        if packed is not None:
            return self._unpack(packed["bufferView"])
        attributes = primitive["attributes"]
        count = self._document["accessors"][attributes["POSITION"]]["count"]
        degree = max(d for d in range(4) if d == 0 or bands(d)[-1] in attributes)
        self._spend(4 * count * (11 + 3 * (degree + 1) ** 2))
        means = self._attribute(attributes["POSITION"], 3, count)
        quats, deviations, alphas = (
            self._attribute(attributes[f"{EXTENSION}:{name}"], width, count)
            for name, width in (("ROTATION", 4), ("SCALE", 3), ("OPACITY", 1))
        )
        sh = np.stack([self._attribute(attributes[name], 3, count) for name in bands(degree)], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            scales = np.log(deviations.astype(np.float64))
        return from_arrays(means, np.roll(quats, 1, axis=1), scales, alphas[:, 0], sh)

    def _unpack(self, view: int) -> Gaussians:
        """Return the splat of a buffer view that is an SPZ file."""
        data = self._view(view)
        if not data.startswith(spz.MAGIC):
            data = unpacked(BytesIO(data), self._room, self._path).read()
        self._spend(len(data))
        content = spz.decode(data, self._path, self._room)
        self._spend(sum(values.numel() for values in content.tensors().values()))
        return content

    def _view(self, place: int) -> bytes:
        """The bytes of a buffer view."""
        view = self._document["bufferViews"][place]
        if view["buffer"] != 0 or "uri" in self._document["buffers"][0]:
            raise BadFile(f"{self._path}: keeps numbers outside of the file, which are not read")
        start, size = view.get("byteOffset", 0), view["byteLength"]
        if start < 0 or size < 0 or start + size > len(self._numbers):
            raise BadFile(f"{self._path}: truncated; a view of its numbers ends after the last one")
        return self._numbers[start : start + size]

    def _attribute(self, place: int, width: int, count: int) -> Float[np.ndarray, "N C"]:
        """The rows of an accessor; normalised integers as the numbers in 0..1 or -1..1 that they stand for."""
        accessor = self._document["accessors"][place]
        if "sparse" in accessor or "bufferView" not in accessor:
            raise BadFile(f"{self._path}: has a sparse accessor, which is not read")
        view = self._document["bufferViews"][accessor["bufferView"]]
        if accessor["count"] != count or SHAPES[accessor["type"]] != width or count < 1:
            raise BadFile(f"{self._path}: not a sound .glb file; the attributes of its splat do not fit each other")
        kind = np.dtype(COMPONENTS[accessor["componentType"]])
        strides = (view.get("byteStride", kind.itemsize * width), kind.itemsize)
        if strides[0] < kind.itemsize * width:
            raise BadFile(f"{self._path}: not a sound .glb file; its rows overlap")
        start = accessor.get("byteOffset", 0)
        rows = np.ndarray((count, width), kind, self._view(accessor["bufferView"]), start, strides)
        if kind.kind == "f":
            return rows
        if not accessor.get("normalized", False):
            return rows.astype(np.float32)
        return (rows / float(np.iinfo(kind).max)).clip(-1.0, 1.0)

    def _spend(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise BadFile(f"{self._path}: not a sound .glb file; its splats unpack to far more than it holds")


def _matrix(node: Mapping[str, Any]) -> Float[np.ndarray, "4 4"]:
    """A node's own matrix, from its column-major numbers or from translation, rotation and scale."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = (float(value) for value in node.get("rotation", (0, 0, 0, 1)))
    turn = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(turn) * np.array(node.get("scale", (1, 1, 1)), np.float64)
    matrix[:3, 3] = np.array(node.get("translation", (0, 0, 0)), np.float64)
    return matrix


def _placed(splat: Gaussians, matrix: Float[np.ndarray, "4 4"], path: Path) -> Gaussians:
    """Return a splat where its node puts it: turned or mirrored, scaled by one number, and moved."""
    if np.array_equal(matrix, np.eye(4)):
        return splat
    linear = matrix[:3, :3]
    scale = float(np.abs(np.linalg.det(linear)) ** (1 / 3)) if np.isfinite(matrix).all() else 0.0
    if scale < 1e-12 or np.abs(linear @ linear.T - scale**2 * np.eye(3)).max() > EVEN * scale**2:
        raise BadFile(f"{path}: a node scales its splat unevenly, or to nothing, which is not read")
    left, _, right = np.linalg.svd(linear)
    placed = turned(splat, torch.from_numpy(left @ right))
    means = placed.means.double() * scale + torch.from_numpy(matrix[:3, 3])
    return replace(placed, means=means.float(), scales=placed.scales + float(np.log(scale)))
