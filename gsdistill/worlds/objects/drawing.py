"""True pictures of everyday objects from their meshes: flat faces, seen from both sides, under a fixed light.

A face's light is ambient + (1 - ambient) (1 + n . l) / 2, n its normal turned to the camera, l and ambient those of the
shapes world, so that both worlds look alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gsdistill.core.structs import Cameras
from gsdistill.disk.compiled import compiled
from gsdistill.renderer.meshes import cover, means
from gsdistill.worlds.base import Buffers
from gsdistill.worlds.objects.meshes import Mesh
from gsdistill.worlds.objects.stacking import places
from gsdistill.worlds.shapes.raycast import AMBIENT, LIGHT

__all__ = ["Scene", "draw", "lights", "placed"]


@dataclass(frozen=True, eq=False)
class Scene:
    """The placed meshes of an object as one."""

    vertices: NDArray[np.float64]  # [V, 3]
    faces: NDArray[np.int32]  # [F, 3]
    parts: NDArray[np.int64]  # [F]: which thing a face belongs to, 0 for the upper one
    colors: NDArray[np.float32]  # [F, 3], without those that the words' colours replace
    shades: NDArray[np.float32]  # [F]: what the colour of the part's word is multiplied with
    normals: NDArray[np.float64]  # [F, 3], of length one; which side they point to is not known


def placed(meshes: Sequence[Mesh], painted: Sequence[bool]) -> Scene:
    """Put one mesh where it stands, or two with the upper one first; ``painted``: whether a word names its colour."""
    spots = places([mesh.outline for mesh in meshes], meshes[1].support if len(meshes) > 1 else None)
    vertices = np.concatenate([spot.scale * m.vertices + spot.offset for m, spot in zip(meshes, spots, strict=True)])
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces = np.concatenate([mesh.faces + np.int32(start) for mesh, start in zip(meshes, starts, strict=False)])
    shades = np.concatenate([mesh.shades * paint for mesh, paint in zip(meshes, painted, strict=True)])
    colors = np.concatenate([mesh.colors for mesh in meshes]) * (shades == 0)[:, None]
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
    parts = np.repeat(np.arange(len(meshes)), [len(mesh.faces) for mesh in meshes])
    return Scene(vertices, faces, parts, colors.astype(np.float32), shades.astype(np.float32), normals)


def lights(scene: Scene, viewmat: NDArray[np.float64]) -> NDArray[np.float32]:
    """The light on each face [F], as the camera of a world-to-camera matrix sees it."""
    return _lights(scene.vertices, scene.faces, scene.normals, -viewmat[:3, :3].T @ viewmat[:3, 3], np.array(LIGHT))


@compiled(fast=False)
def _lights(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int32],
    normals: NDArray[np.float64],
    eye: NDArray[np.float64],
    light: NDArray[np.float64],
) -> NDArray[np.float32]:
    out = np.empty(faces.shape[0], np.float32)
    for f in range(faces.shape[0]):
        away, facing = 0.0, 0.0
        for axis in range(3):
            away += (eye[axis] - vertices[faces[f, 0], axis]) * normals[f, axis]
            facing += light[axis] * normals[f, axis]
        out[f] = AMBIENT + (1.0 - AMBIENT) * 0.5 * (1.0 + (facing if away >= 0.0 else -facing))
    return out


def draw(scene: Scene, cameras: Cameras, supersample: int) -> Buffers:
    """Draw a scene for every camera with supersample^2 rays a pixel; views are shared out to torch's threads."""
    poses, lenses = cameras.viewmats.double().numpy(), cameras.Ks.double().numpy()
    size, count = (cameras.height, cameras.width), int(scene.parts.max()) + 1
    own = np.eye(count, dtype=np.float32)[scene.parts]

    def view(pose: NDArray[np.float64], lens: NDArray[np.float64]) -> NDArray[np.float32]:
        light = lights(scene, pose)[:, None]
        values = np.concatenate([own * scene.shades[:, None] * light, own, scene.colors * light], axis=1)
        return means(cover(scene.vertices, scene.faces, pose, lens, size, supersample), values, supersample)

    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        planes = torch.from_numpy(np.stack(list(pool.map(view, poses, lenses)))).movedim(-1, 1)
    shade, coverage, fixed = (part.contiguous() for part in planes.split([count, count, 3], 1))
    return Buffers(shade, coverage, fixed)
