"""How a splat becomes a mesh. Nothing heavy is imported here: the command line reads it for its help."""

from __future__ import annotations

from dataclasses import dataclass

from gsdistill.core.ranges import bounded

__all__ = ["MeshSettings"]


@dataclass(frozen=True)
class MeshSettings:
    """Settings of a mesh."""

    resolution: int = bounded(64, low=16, high=384)  # Cells of the grid along the longest side.
    level: float = bounded(0.3, above=0, below=1)  # Opacity at the surface: less makes the mesh thicker.
    smallest: float = bounded(0.02, low=0, high=1)  # Parts below this share of the largest's volume go.
    texture: int | None = bounded(1024, low=64, high=8192)  # Pixels of its side; none: colours at the vertices.
