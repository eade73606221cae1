"""Point clouds: cached where a model made them, rotated, and summarised in one line.

A cloud is kept under a key: everything that decides its values, such as the prompt, the seed, the model and its
settings. The file's name is the prompt's slug and a hash of the key, and the whole key stands in the file and is
compared when it is read, so that a cloud is never taken for another's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gsdistill import __version__
from gsdistill.core.structs import SH_C0, Gaussians, PointCloud
from gsdistill.disk.cache import cache_path, file_name, keep, recall
from gsdistill.disk.places import slug

__all__ = ["describe", "make_once", "near", "turned"]

LONGEST_SLUG = 60


def make_once(key: Mapping[str, object], make: Callable[[], PointCloud]) -> PointCloud:
    """Return the cloud that is kept under ``key``, or else make it with ``make`` and keep it; float32, on the CPU.

    The values are the same bit for bit either way. A file that is broken or holds another key is replaced; without a
    cache folder nothing is kept. ``key`` holds plain JSON values, among them the prompt under "prompt".

    Raises:
        Exception: whatever ``make`` raises.
    """
    text = json.dumps({"gsdistill": __version__, **key}, sort_keys=True, allow_nan=False)
    path = cache_path("clouds", f"{slug(str(key['prompt']), LONGEST_SLUG)}-{file_name(text)}")
    cached = recall(path, text)
    if cached is not None and _sound(cached):
        return PointCloud(cached["points"], cached["colors"])
    made = make()
    cloud = PointCloud(*(tensor.detach().float().cpu().contiguous() for tensor in (made.points, made.colors)))
    keep(path, text, {"points": cloud.points, "colors": cloud.colors})
    return cloud


def describe(gaussians: Gaussians) -> str:
    """Return one line: how many Gaussians, how far they reach (world units) and their colours (red, green, blue)."""
    size = gaussians.means.amax(dim=0) - gaussians.means.amin(dim=0)
    colors = 0.5 + SH_C0 * gaussians.sh[:, 0]
    extent, mean, deviation = (
        " ".join(f"{value:.2f}" for value in row)
        for row in (size.tolist(), colors.mean(dim=0).tolist(), colors.std(dim=0, correction=0).tolist())
    )
    farthest = gaussians.means.norm(dim=-1).max().item()
    return (
        f"{len(gaussians):,} Gaussians, box {extent}, farthest {farthest:.2f} from the origin; "
        f"red green blue: mean {mean}, deviation {deviation}"
    )


def near(points: Float[np.ndarray, "N 3"], reach: float) -> Bool[np.ndarray, "N"]:
    """Which points lie within ``reach`` times the distance from the middle that nine tenths of them do not exceed.

    The middle is the median along each axis. Where nine tenths of the points lie in one place, all count as near.
    """
    away = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    usual = np.quantile(away, 0.9)
    return away <= (reach * usual if usual > 0 else np.inf)


def turned(points: Float[Tensor, "N 3"], azimuth: float) -> Float[Tensor, "N 3"]:
    """Return the points turned by ``azimuth`` degrees about +z, counter-clockwise seen from above."""
    angle = math.radians(azimuth)
    x, y, z = points.unbind(dim=-1)
    turned_x, turned_y = math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y
    return torch.stack([turned_x, turned_y, z], dim=-1)


def _sound(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the tensors of a file make a cloud."""
    points, colors = tensors.get("points"), tensors.get("colors")
    if points is None or colors is None or not points.dtype == colors.dtype == torch.float32:
        return False
    return points.shape == colors.shape and points.ndim == 2 and points.shape[1] == 3
