"""Reading triangle meshes with their colours: .glb .gltf .obj .ply .stl .off, through trimesh, from local files only.

A file becomes parts in its own world coordinates: each geometry once for every node that shows it, with the transform
of that node. Colours are sRGB in 0..1, as in pictures. A texture is looked up at the nearest texel and repeats.

* glTF 2.0, section 3.9.2: base colour = texture (sRGB) x factor (linear) x vertex colour (linear), multiplied in linear
  light. Transparency and the other properties of a material are ignored.
* OBJ: the picture of the material (map_Kd), or else its Kd, or else vertex colours, as they stand.
* PLY: texture, face colours or vertex colours, as they stand.
* A mesh without any of these, and every .stl and .off, is grey.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import BadFile, did_you_mean
from gsdistill.core.failing import failing_as
from gsdistill.scene.ply_header import with_sound_header
from gsdistill.scene.surface import SurfacePoints, to_linear, to_srgb

__all__ = ["SUFFIXES", "Part", "painted", "read_mesh"]

GLTF = (".glb", ".gltf")
SUFFIXES = (*GLTF, ".obj", ".ply", ".stl", ".off")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tga", ".tif", ".tiff")
COMPRESSIONS = ("KHR_draco_mesh_compression", "EXT_meshopt_compression")
GREY = 0.5

Paint = Callable[[SurfacePoints], Float[Tensor, "N 3"]]


@dataclass(frozen=True)
class Part:
    """Triangles of one material."""

    corners: Float[Tensor, "F 3 3"]  # in the file's units and axes, float64
    paint: Paint  # returns the colours at places on these triangles, sRGB in 0..1, float64


def read_mesh(path: Path) -> list[Part]:
    """Return the parts of a mesh, each with at least one triangle.

    Raises:
        BadFile: the suffix is unknown, the file or one that it refers to is missing or broken, its triangles are
            compressed, it has none, or a vertex is not finite.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise BadFile(f"{path}: a mesh is one of {' '.join(SUFFIXES)}, not '{suffix}'.{did_you_mean(suffix, SUFFIXES)}")
    shown = _load(path)
    if not shown:
        hint = "; for a point cloud or a splat take --init ply" if suffix in (".ply", ".glb") else ""
        raise BadFile(f"{path}: holds no triangles{hint}")
    parts = []
    for mesh, vertices in shown:
        if vertices.shape[1:] != (3,):
            raise BadFile(f"{path}: its vertices have {vertices.shape[-1]} coordinates, not 3")
        broken = int((~np.isfinite(vertices)).any(axis=1).sum())
        if broken:
            raise BadFile(f"{path}: {broken} of {len(vertices)} vertices are NaN or infinite")
        if mesh.faces.min() < 0 or mesh.faces.max() >= len(vertices):
            raise BadFile(f"{path}: a triangle names a vertex beyond its {len(vertices)}")
        with failing_as(BadFile, f"{path}: its colours are not sound"):
            paint = _paint(mesh, path, suffix in GLTF)
        parts.append(Part(_at_corners(mesh, vertices), paint))
    return parts


def painted(parts: Sequence[Part], points: SurfacePoints) -> Float[Tensor, "N 3"]:
    """Return the colour of each point, sRGB in 0..1, float64; face numbers count through all parts in order."""
    colors, first = torch.zeros(len(points.faces), 3, dtype=torch.float64), 0
    for part in parts:
        here = (points.faces >= first) & (points.faces < first + len(part.corners))
        colors[here] = part.paint(SurfacePoints(points.faces[here] - first, points.weights[here]))
        first += len(part.corners)
    return colors


class _Beside:
    """Gives trimesh the local files that a mesh refers to, and remembers failures, which trimesh ignores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.failed: dict[str, str] = {}

    def get(self, name: str) -> bytes:
        """Return the content of a file; ``name`` is relative to the mesh and may be percent-encoded.

        Raises:
            OSError: there is no such file, or it should be a picture and is none.
        """
        from PIL import Image

        places = [self.folder / item.strip().replace("\\", "/") for item in (name, unquote(name))]
        picture = next((place for place in places if place.is_file()), None)
        if picture is None:
            self.failed[name] = "is not there"
            raise FileNotFoundError(name)
        if picture.suffix.lower() in PICTURES:
            try:
                Image.open(picture).close()
            except OSError:
                self.failed[name] = "is no picture"
                raise
        return picture.read_bytes()

    __getitem__ = get


def _load(path: Path) -> list[tuple[Any, np.ndarray]]:
    """Return the trimesh meshes of a file that have triangles, each with its vertices where the scene shows it."""
    import trimesh
    from trimesh.exchange.load import mesh_loaders

    if not path.is_file():
        raise BadFile(f"{path}: cannot be read: {'it is a folder' if path.is_dir() else 'no such file'}")
    beside, kind = _Beside(path.parent), path.suffix.lower()[1:]
    with failing_as(BadFile, f"{path}: not a sound .{kind} file"):
        data = path.read_bytes()
        _refuse_compressed(data, path)
        if kind == "ply":
            data = with_sound_header(data, path)
        read = mesh_loaders[kind](file_obj=BytesIO(data), file_type=kind, resolver=beside)
        for item in read.get("geometry", {"": read}).values():
            item["process"] = False  # processing would drop vertices that are not finite
            for name in ("vertex_colors", "face_colors"):
                item[name] = _in_bytes(item.get(name))
        scene = trimesh.load_scene(read)
        shown = []
        for node in sorted(scene.graph.nodes_geometry):
            transform, name = scene.graph[node]
            mesh = scene.geometry[name]
            if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces):
                shown.append((mesh, trimesh.transform_points(mesh.vertices, transform)))
    for name, what in beside.failed.items():
        raise BadFile(f"{path}: refers to '{name}', which {what}")
    return shown


def _refuse_compressed(data: bytes, path: Path) -> None:
    """Refuse glTF with compressed triangles, which trimesh would read as zeros."""
    for name in COMPRESSIONS if path.suffix.lower() in GLTF else ():
        if name.encode() in data:
            raise BadFile(f"{path}: its triangles are compressed ({name}), which is not read; export it without that")


def _in_bytes(colors: np.ndarray | None) -> np.ndarray | None:
    """Return 16-bit colours as bytes, since trimesh would keep their lower byte; others as they are."""
    if colors is None or colors.dtype != np.uint16:
        return colors
    return ((colors.astype(np.int64) + 128) // 257).astype(np.uint8)


def _at_corners(mesh: Any, of_vertices: Any) -> Float[Tensor, "F 3 C"]:
    """Return the rows of the vertices at the three corners of each triangle, float64."""
    return torch.from_numpy(np.asarray(of_vertices, dtype=np.float64)[mesh.faces])


def _paint(mesh: Any, path: Path, linear: bool) -> Paint:
    """Return the paint of a mesh; ``linear``: its vertex colours are linear light."""
    kind = mesh.visual.kind
    if kind == "texture":
        return _painted_by_material(mesh, path)
    if kind == "vertex":
        corners = _at_corners(mesh, _unit(mesh.visual.vertex_colors))
        return (lambda points: to_srgb(points.of(corners))) if linear else (lambda points: points.of(corners))
    if kind == "face":
        faces = torch.from_numpy(_unit(mesh.visual.face_colors))
        return lambda points: faces[points.faces]
    return lambda points: torch.full((len(points.faces), 3), GREY, dtype=torch.float64)


def _painted_by_material(mesh: Any, path: Path) -> Paint:
    from trimesh.visual.material import PBRMaterial

    material, uv = mesh.visual.material, mesh.visual.uv
    physical = isinstance(material, PBRMaterial)
    image = material.baseColorTexture if physical else material.image
    texture = _texture(_at_corners(mesh, uv), image, path) if image is not None and uv is not None else None
    if not physical:
        diffuse = _unit(np.broadcast_to(material.kwargs.get("kd", GREY), 3))
        return texture or (lambda points: torch.from_numpy(diffuse).expand(len(points.faces), 3))
    factor = material.baseColorFactor
    base = torch.from_numpy(_unit(np.full((1, 4), 255, np.uint8) if factor is None else factor[None]))
    colours = mesh.visual.vertex_attributes.get("color")
    corners = None if colours is None else _at_corners(mesh, _unit(colours))

    def paint(points: SurfacePoints) -> Float[Tensor, "N 3"]:
        light = base.expand(len(points.faces), 3)
        if texture is not None:
            light = light * to_linear(texture(points))
        return to_srgb(light if corners is None else light * points.of(corners))

    return paint


def _texture(uv: Float[Tensor, "F 3 2"], image: Any, path: Path) -> Paint:
    """Return the paint of a picture; u runs to the right and v up, from its lower left corner."""
    if not uv.isfinite().all():
        raise BadFile(f"{path}: texture coordinates are NaN or infinite")
    with failing_as(BadFile, f"{path}: a texture cannot be read"):
        pixels = torch.from_numpy(_unit(np.asarray(image.convert("RGB"))))

    def paint(points: SurfacePoints) -> Float[Tensor, "N 3"]:
        u, v = points.of(uv).unbind(dim=1)
        column = (u * image.width).floor().long() % image.width
        row = ((1.0 - v) * image.height).floor().long() % image.height
        return pixels[row, column]

    return paint


def _unit(colors: Any) -> np.ndarray:
    """Return red, green and blue in 0..1, float64; whole numbers are divided by the largest of their type."""
    colors = np.asarray(colors)[..., :3]
    top = np.iinfo(colors.dtype).max if np.issubdtype(colors.dtype, np.integer) else 1.0
    return (colors / top).clip(0.0, 1.0).astype(np.float64)
