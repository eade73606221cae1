"""A triangle mesh to start from: coloured points on its surface, uniform by area, with a Gaussian on each.

A file's axes are turned into ours (+z up, the front towards +x). If +y is up, as glTF says and as is usual for OBJ, the
front is towards +z, and (x, y, z) becomes (z, x, y). If +z is up, the file is assumed to be in our axes already.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from gsdistill.core.errors import BadFile
from gsdistill.core.structs import PointCloud
from gsdistill.scene.clouds import turned
from gsdistill.scene.init.base import SurfaceInitialiser
from gsdistill.scene.mesh import painted, read_mesh
from gsdistill.scene.surface import sample_surface

__all__ = ["Mesh"]

Y_UP = (".glb", ".gltf", ".obj")


@dataclass(frozen=True, kw_only=True)
class Mesh(SurfaceInitialiser):
    """Settings of the mesh initialiser."""

    path: Path  # of the mesh: .glb .gltf .obj .ply .stl or .off
    up: Literal["auto", "y", "z"] = "auto"  # the file's vertical; auto: y for .glb .gltf .obj, z for the others

    def cloud(self, prompt: str, generator: torch.Generator, device: torch.device | str) -> PointCloud:
        """Return points on the mesh, centred on the origin and about 1 long; the prompt is ignored.

        Raises:
            BadFile: the file holds no mesh, is broken, or the mesh has no area.
        """
        parts = read_mesh(self.path)
        corners = torch.cat([part.corners for part in parts])
        low, high = corners.amin(dim=(0, 1)), corners.amax(dim=(0, 1))
        # centred before float32, which would blur a mesh far from the origin
        corners = (corners - (0.5 * low + 0.5 * high)) / (high - low).max().clamp_min(1e-300)
        try:
            points = sample_surface(corners, self.count, generator)
        except ValueError as error:
            raise BadFile(f"{self.path}: its {len(corners)} triangles have no area") from error
        places = points.of(corners)
        if self.up == "y" or (self.up == "auto" and self.path.suffix.lower() in Y_UP):
            places = places[:, [2, 0, 1]]
        return PointCloud(turned(places, self.azimuth).float(), painted(parts, points).float())
