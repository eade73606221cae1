"""Reads FBX files of version 7, binary and as text: meshes where their nodes put them, with their materials' colours.

A file is a tree of nodes, each with a name, values and children (https://code.blender.org/2013/08/fbx-binary-file-format-specification).
Animation, textures and curves are left out.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Surface", "read_fbx"]

GREY = (0.8, 0.8, 0.8)  # of a face without a material
_SCALARS = {b"Y": "<h", b"C": "<?", b"I": "<i", b"F": "<f", b"D": "<d", b"L": "<q"}
_ARRAYS = {b"f": "<f4", b"d": "<f8", b"l": "<i8", b"i": "<i4", b"b": "u1", b"c": "u1"}
_WORD = re.compile(r'"([^"]*)"|([^,\s"]+)')


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles of one material."""

    corners: NDArray[np.float64]  # [F, 3, 3], +y up
    color: tuple[float, ...]  # of the file, in 0..1
    material: str


@dataclass(eq=False)
class Node:
    """A node of the tree."""

    name: str
    values: Sequence[Any]
    children: list[Node] = field(default_factory=list)

    def child(self, name: str) -> Node | None:
        """The first child of this name."""
        return next((node for node in self.children if node.name == name), None)

    def array(self, name: str) -> NDArray[Any]:
        """The numbers of a child; none where there is no such child."""
        found = self.child(name)
        return np.atleast_1d(np.asarray(found.values[0])) if found else np.array([])

    def numbers(self, name: str, default: Sequence[float]) -> NDArray[np.float64]:
        """The numbers of a property that objects have."""
        properties = self.child("Properties70")
        rows = [row.values for row in properties.children if row.values[0] == name] if properties else []
        return np.array(rows[0][4 : 4 + len(default)] if rows else default, np.float64)

    @property
    def title(self) -> str:
        """The name that its author gave an object."""
        return str(self.values[1]).split("\0")[0].removeprefix(f"{self.name}::")


def read_fbx(path: Path) -> list[Surface]:
    """All meshes of a file.

    Raises:
        ValueError, struct.error, zlib.error: it is damaged.
    """
    data = path.read_bytes()
    tree = Node("", (), list(_binary(data) if data.startswith(b"Kaydara") else _text(data.decode("utf-8", "replace"))))
    objects, connections = tree.child("Objects"), tree.child("Connections")
    if objects is None or connections is None:
        raise ValueError(f"{path}: it has no objects")
    known = {node.values[0]: node for node in objects.children if node.values}
    parents, children = defaultdict(list), defaultdict(list)
    for kind, low, high, *_ in (node.values for node in connections.children):
        if kind == "OO" and low in known and high in known:
            parents[low].append(high)
            children[high].append(low)

    def place(number: int) -> NDArray[np.float64]:
        above = [high for high in parents[number] if known[high].name == "Model"]
        return place(above[0]) @ _local(known[number]) if above else _local(known[number])

    surfaces = []
    for number, node in known.items():
        models = [high for high in parents[number] if known[high].name == "Model"]
        if node.name == "Geometry" and node.child("Vertices") and models:
            materials = [known[low] for low in children[models[0]] if known[low].name == "Material"]
            matrix = place(models[0]) @ _matrix(known[models[0]], "Geometric")
            surfaces += _surfaces(node, matrix, materials)
    settings = tree.child("GlobalSettings")
    if settings is not None and settings.numbers("UpAxis", (1,))[0] == 2:
        surfaces = [Surface(s.corners[..., [0, 2, 1]] * [1, 1, -1], s.color, s.material) for s in surfaces]
    return surfaces


def _surfaces(geometry: Node, matrix: NDArray[np.float64], materials: Sequence[Node]) -> list[Surface]:
    points = geometry.array("Vertices").reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]
    numbers = geometry.array("PolygonVertexIndex").astype(np.int64)  # the last of each polygon as its complement
    layer, each = geometry.child("LayerElementMaterial"), np.zeros(1, int)
    if layer is not None and len(layer.array("Materials")):
        each = layer.array("Materials").astype(int)
    fans = defaultdict(list)
    for number, polygon in enumerate(np.split(numbers, np.flatnonzero(numbers < 0) + 1)[:-1]):
        polygon = np.where(polygon < 0, ~polygon, polygon)
        fan = [(polygon[0], polygon[i], polygon[i + 1]) for i in range(1, len(polygon) - 1)]
        fans[each[number] if len(each) > 1 and number < len(each) else each[0]] += fan
    found = []
    order = (2, 1, 0) if np.linalg.det(matrix[:3, :3]) < 0 else (0, 1, 2)  # mirrored polygons turn the other way
    for which, fan in fans.items():
        if not fan:
            continue
        material = materials[min(max(which, 0), len(materials) - 1)] if materials else None
        color = GREY if material is None else material.numbers("DiffuseColor", list(material.numbers("Diffuse", GREY)))
        title = material.title if material else ""
        found.append(Surface(points[np.array(fan)[:, order]], tuple(map(float, color)), title))
    return found


def _local(model: Node) -> NDArray[np.float64]:
    """A model's place in that above it."""
    matrix = _matrix(model, "Lcl ")
    matrix[:3, :3] = _rotation(model.numbers("PreRotation", (0, 0, 0))) @ matrix[:3, :3]
    return matrix


def _matrix(model: Node, kind: str) -> NDArray[np.float64]:
    """Scale, rotation and shift by the properties whose names begin so."""
    matrix = np.eye(4)
    matrix[:3, :3] = _rotation(model.numbers(f"{kind}Rotation", (0, 0, 0)))
    matrix[:3, :3] *= model.numbers(f"{kind}Scaling", (1, 1, 1))
    matrix[:3, 3] = model.numbers(f"{kind}Translation", (0, 0, 0))
    return matrix


def _rotation(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """About x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _binary(data: bytes) -> Iterator[Node]:
    version = struct.unpack_from("<I", data, 23)[0]
    head = "<QQQB" if version >= 7500 else "<IIIB"

    def value(at: int) -> tuple[Any, int]:
        kind, at = data[at : at + 1], at + 1
        if kind in _SCALARS:
            return struct.unpack_from(_SCALARS[kind], data, at)[0], at + struct.calcsize(_SCALARS[kind])
        if kind in (b"S", b"R"):
            end = at + 4 + struct.unpack_from("<I", data, at)[0]
            return data[at + 4 : end].decode("utf-8", "replace"), end
        count, packed, size = struct.unpack_from("<III", data, at)
        raw = data[at + 12 : at + 12 + size]
        return np.frombuffer(zlib.decompress(raw) if packed else raw, _ARRAYS[kind], count), at + 12 + size

    def node(at: int) -> tuple[Node | None, int]:
        end, count, _, length = struct.unpack_from(head, data, at)
        at += struct.calcsize(head)
        if end == 0:
            return None, at
        found = Node(data[at : at + length].decode(), [])
        at += length
        values = []
        for _ in range(count):
            one, at = value(at)
            values.append(one)
        found.values = values
        while at < end:
            child, at = node(at)
            if child is not None:
                found.children.append(child)
        return found, end

    at = 27
    while at < len(data):
        found, at = node(at)
        if found is None:
            return
        yield found


def _text(text: str) -> Iterator[Node]:
    lines = iter([line.strip() for line in text.splitlines()])

    def nodes() -> Iterator[Node]:
        for line in lines:
            if line.startswith("}"):
                return
            if (match := re.match(r"([\w|]+):\s*(.*)$", line)) is None:
                continue
            name, rest = match.groups()
            while rest.endswith(","):
                rest += next(lines)
            if not rest.endswith("{"):
                yield Node(name, _words(rest))
            elif rest.startswith("*"):  # an array: the lines up to the brace, after 'a:'
                body = " ".join(iter(lambda: next(lines), "}")).partition(":")[2]
                yield Node(name, [np.array([word for word in body.split(",") if word.strip()], np.float64)])
            else:
                yield Node(name, _words(rest[:-1]), list(nodes()))

    yield from nodes()


def _words(text: str) -> list[Any]:
    def number(word: str) -> Any:
        for kind in (int, float):
            try:
                return kind(word)
            except ValueError:
                continue
        return word

    return [number(word) if word else quoted for quoted, word in _WORD.findall(text)]
