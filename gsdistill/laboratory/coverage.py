"""How much samples differ from each other, and which known objects they show.

Pictures are compared by the root of their mean square difference over pixels and channels, with values in 0..1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.structs import Cameras
from gsdistill.evaluation.naming import colouring_costs
from gsdistill.worlds.base import Thing, world_named

__all__ = ["differences", "mean_difference", "nearest_objects"]


def differences(a: Float[Tensor, "N H W 3"], b: Float[Tensor, "M H W 3"]) -> Float[Tensor, "N M"]:
    """The root mean square difference between each picture of ``a`` and each of ``b``, float64."""
    first, second = a.flatten(1).double(), b.flatten(1).double()
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist") / first.shape[1] ** 0.5


def mean_difference(table: Float[Tensor, "N N"], seed: int, resamples: int = 2000) -> tuple[float, float, float]:
    """The mean difference between two samples, and the ends of its 95 % bootstrap interval over the seeds.

    ``table`` has the difference of each pair. A resample draws N of the N samples with replacement; pairs of a sample
    with itself do not count.
    """
    count = len(table)
    drawn = torch.randint(0, count, (resamples, count), generator=torch.Generator().manual_seed(seed))
    means = torch.stack([table[rows][:, rows].sum() / (rows[:, None] != rows).sum().clamp_min(1) for rows in drawn])
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
    return float(table.sum() / (count * (count - 1))), low, high


def nearest_objects(images: Float[Tensor, "N H W 3"], camera: Cameras) -> tuple[list[str], Float[Tensor, "N"]]:
    """The object of the shapes world nearest to each picture from one ``camera``, and how much of it is missing.

    Every solid and stack is tried in all its colours over the picture's own background, the median of its border, as in
    :mod:`gsdistill.evaluation.naming`. The missing share is the picture's difference from the nearest object over the
    difference of the background alone: 0 for the object itself, 1 for an empty picture.
    """
    background = torch.cat([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], dim=1).median(1).values
    background, pictures = background.double()[:, None, :], images.flatten(1, 2).double()
    world = world_named("shapes")
    colours, palette = list(world.palette), torch.tensor(list(world.palette.values()), dtype=torch.float64)
    least, missing = torch.full((2, len(images)), torch.inf, dtype=torch.float64)
    names = [""] * len(images)
    for shapes in world.layouts():
        buffers = world.trace(shapes, camera, supersample=2)
        covered = buffers.coverage[0].sum(0).double().view(1, -1, 1)
        r, m = pictures - (1.0 - covered) * background, buffers.shade[0].flatten(1).double()
        m = torch.cat([m, torch.zeros_like(m)])[:2]  # a missing second part
        costs = colouring_costs((palette, palette), (m @ m.T).expand(len(r), 2, 2), m @ r)
        best, place = costs.flatten(1).min(1)
        best += r.square().sum((1, 2))
        picked = torch.stack(torch.unravel_index(place, costs.shape[1:]), dim=1)
        body = torch.einsum("px,npc->nxc", m, palette[picked])
        empty = (body - covered * background).square().sum((1, 2))
        for n in (best < least).nonzero()[:, 0].tolist():
            things = tuple(Thing(colours[k], shape) for k, shape in zip(picked[n].tolist(), shapes, strict=False))
            least[n], names[n] = best[n], world.caption(things)
            missing[n] = (best[n].clamp_min(0.0) / empty[n]).sqrt()
    return names, missing
