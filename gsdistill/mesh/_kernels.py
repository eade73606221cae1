"""The compiled loops of meshing: sum Gaussians on a grid, and find the triangle of each texel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gsdistill.disk.compiled import compiled

__all__ = ["add_gaussians", "cover"]


@compiled(fast=False)
def add_gaussians(
    out: NDArray[np.float32],
    means: NDArray[np.float64],
    axes: NDArray[np.float64],
    deviations: NDArray[np.float64],
    opacities: NDArray[np.float64],
) -> None:
    """Add each Gaussian to ``out`` [X, Y, Z] within three deviations.

    All lengths are in cells: ``means`` [N, 3], ``axes`` [N, 3, 3] with an axis in each column, ``deviations`` [N, 3];
    ``opacities`` [N] are 0..1.
    """
    first, last = np.empty(3, np.int64), np.empty(3, np.int64)
    for n in range(means.shape[0]):
        for a in range(3):
            far = 3.0 * np.sqrt(((axes[n, a] * deviations[n]) ** 2).sum())
            first[a] = max(0, int(np.ceil(means[n, a] - far)))
            last[a] = min(out.shape[a] - 1, int(np.floor(means[n, a] + far)))
        for i in range(first[0], last[0] + 1):
            for j in range(first[1], last[1] + 1):
                for k in range(first[2], last[2] + 1):
                    x, y, z = i - means[n, 0], j - means[n, 1], k - means[n, 2]
                    squared = 0.0
                    for a in range(3):
                        along = x * axes[n, 0, a] + y * axes[n, 1, a] + z * axes[n, 2, a]
                        squared += (along / deviations[n, a]) ** 2
                    out[i, j, k] += opacities[n] * np.exp(-0.5 * squared)


@compiled(fast=False)
def cover(flat: NDArray[np.float64], faces: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
    """Write for each texel which triangle of ``flat`` [F, 3, (column, row)] contains its centre, and where.

    Fills ``faces`` [rows, columns] and the barycentric ``weights`` [rows, columns, 3]; other texels stay as they are.
    """
    rows, columns = faces.shape
    for f in range(flat.shape[0]):
        (ax, ay), (bx, by), (cx, cy) = flat[f, 0], flat[f, 1], flat[f, 2]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0:
            continue
        for r in range(max(0, int(np.ceil(min(ay, by, cy)))), min(rows - 1, int(np.floor(max(ay, by, cy)))) + 1):
            for c in range(max(0, int(np.ceil(min(ax, bx, cx)))), min(columns - 1, int(np.floor(max(ax, bx, cx)))) + 1):
                second = ((c - ax) * (cy - ay) - (r - ay) * (cx - ax)) / area
                third = ((bx - ax) * (r - ay) - (by - ay) * (c - ax)) / area
                if min(second, third, 1.0 - second - third) >= -1e-9:
                    faces[r, c] = f
                    weights[r, c] = (1.0 - second - third, second, third)
