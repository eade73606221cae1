"""Reads a model's file, glTF (with Draco), OBJ or FBX, as triangles with what colours them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from fbx import read_fbx
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Part", "read_parts"]


@dataclass(frozen=True, eq=False)
class Part:
    """The triangles of one material."""

    corners: NDArray[np.float64]  # [F, 3, 3], +y up, +z to the front
    color: NDArray[np.float64] | None  # [3] or [F, 3], the file's numbers, in 0..1; None where it has none
    alpha: float = 1.0  # 0 where it cannot be seen
    material: str = ""
    uv: NDArray[np.float64] | None = None  # [F, 3, 2], v upwards
    picture: Image.Image | None = None  # it is multiplied with the colour


def read_parts(path: Path) -> list[Part]:
    """All triangles of a model's file.

    Raises:
        ValueError, KeyError, IndexError, OSError, struct.error, zlib.error: it is damaged, or lacks a file.
    """
    if path.suffix.lower() == ".fbx":
        return [Part(one.corners, np.array(one.color), material=one.material) for one in read_fbx(path)]
    scene = trimesh.load_scene(path, process=False)
    parts = []
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        mesh = scene.geometry[name]
        if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces):
            vertices = np.asarray(mesh.vertices) @ matrix[:3, :3].T + matrix[:3, 3]
            mirrored = np.linalg.det(matrix[:3, :3]) < 0
            parts.append(_part(vertices, mesh.faces[:, ::-1] if mirrored else mesh.faces, mesh.visual))
    return parts


def _part(vertices: NDArray[np.float64], faces: NDArray[np.int64], visual: Any) -> Part:
    corners = vertices[faces]
    if visual.kind != "texture":
        return Part(corners, np.asarray(visual.face_colors)[:, :3] / 255 if visual.kind else None)
    material = visual.material
    if hasattr(material, "baseColorTexture"):
        picture, factor = material.baseColorTexture, material.baseColorFactor
    else:  # of OBJ, where a picture replaces the colour
        picture, factor = material.image, None if material.image else material.diffuse
    color, alpha = (None, 1.0) if factor is None else (np.asarray(factor[:3]) / 255, float(factor[3]) / 255)
    uv = None
    if picture is not None and visual.uv is not None and len(visual.uv) == len(vertices):
        uv = np.asarray(visual.uv)[faces]
    return Part(corners, color, alpha, material.name or "", uv, picture if uv is not None else None)
