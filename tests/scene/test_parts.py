"""Parts of a splat against brute force over all pairs, and against splats whose parts are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from renderer.scenes import ball
from scipy.spatial.transform import Rotation

from gsdistill.core.structs import Gaussians
from gsdistill.scene import parts as module
from gsdistill.scene.parts import LEVEL, parts


def logit(opacity: float) -> float:
    return math.log(opacity / (1.0 - opacity))


def blobs(means: list[list[float]], deviation: float = 0.1, opacity: float = 0.5) -> Gaussians:
    """Round Gaussians."""
    count = len(means)
    quats = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(count, 4)
    scales, opacities = torch.full((count, 3), math.log(deviation)), torch.full((count,), logit(opacity))
    return Gaussians(torch.tensor(means).reshape(-1, 3), quats, scales, opacities, torch.zeros(count, 1, 3))


def by_brute_force(gaussians: Gaussians, level: float) -> list[int]:
    """The definition, one pair after the other, and a flood over them; the labels of parts are any."""
    rotations = torch.from_numpy(Rotation.from_quat(gaussians.quats.double().numpy()[:, [1, 2, 3, 0]]).as_matrix())
    covariances = rotations @ torch.diag_embed(gaussians.scales.double().exp().square()) @ rotations.mT
    opacities = torch.sigmoid(gaussians.opacities.double())
    means, count = gaussians.means.double(), len(gaussians)
    widths = [math.sqrt(2 * math.log(max(float(o) / level, 1.0))) for o in opacities]

    def touch(i: int, j: int) -> bool:
        u = (means[i] - means[j]) / (means[i] - means[j]).norm()
        reach = sum(widths[k] * math.sqrt(float(u @ covariances[k] @ u)) for k in (i, j))
        return float((means[i] - means[j]).norm()) <= reach

    found = list(range(count))
    for i in range(count):
        for j in range(i):
            if found[i] != found[j] and touch(i, j):
                old, new = found[i], found[j]
                found = [new if label == old else label for label in found]
    return found


def same_partition(a: list[int], b: list[int]) -> bool:
    return len(set(zip(a, b, strict=True))) == len(set(a)) == len(set(b))


@pytest.mark.parametrize(("size", "stretch"), [(0.02, 0.4), (0.03, 1.2), (0.04, 0.4), (0.005, 2.0)])
def test_parts_are_those_of_all_pairs(size, stretch, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 50)  # so that pairs come in many portions
    splat = ball(150, size=size, stretch=stretch, seed=3)
    found = parts(splat).tolist()
    assert 3 < len(set(found)) < 150
    assert same_partition(found, by_brute_force(splat, LEVEL))


def test_two_balls_meet_where_their_reaches_do():
    """Opacity 0.5 ends at alpha 0.05 after sqrt(2 ln 10) = 2.146 deviations."""
    reach = 2 * 0.1 * math.sqrt(2 * math.log(10))
    assert parts(blobs([[0, 0, 0], [0.999 * reach, 0, 0]])).tolist() == [0, 0]
    assert parts(blobs([[0, 0, 0], [1.001 * reach, 0, 0]])).tolist() == [0, 1]


def test_a_large_gaussian_joins_the_small_ones_that_it_holds():
    """Two clusters of small ones, each so many that all nearest neighbours are in the same cluster."""
    small = ball(60, size=0.01, stretch=0.0, seed=1)
    left, right = (small.means * 0.05 + torch.tensor([x, 0.0, 0.0]) for x in (-0.5, 0.5))
    two = replace(
        ball(120, size=0.01, stretch=0.0), means=torch.cat([left, right]), opacities=torch.full((120,), logit(0.9))
    )
    assert int(parts(two).max()) == 1
    large = blobs([[0.0, 0.0, 0.0]], deviation=0.3)
    joined = Gaussians(*(torch.cat([value, large.tensors()[name]]) for name, value in two.tensors().items()))
    assert int(parts(joined).max()) == 0


def test_an_ellipsoid_reaches_along_its_long_axis_only():
    needle = blobs([[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0]], deviation=0.01)
    scales = needle.scales.clone()
    scales[0, 0] = math.log(0.3)
    assert parts(replace(needle, scales=scales)).tolist() == [0, 0, 1]


def test_parts_are_numbered_by_their_opacity():
    splat = blobs([[0, 0, 0], [5, 0, 0], [5.1, 0, 0], [9, 0, 0]])
    assert parts(splat).tolist() == [1, 0, 0, 2]
    opacities = torch.tensor([logit(0.9), logit(0.2), logit(0.2), logit(0.95)])
    assert parts(replace(splat, opacities=opacities)).tolist() == [1, 2, 2, 0]


def test_what_is_fainter_than_the_level_stands_for_itself_or_in_another():
    splat = blobs([[0, 0, 0], [0.1, 0, 0], [3, 0, 0], [3.01, 0, 0]])
    opacities = torch.tensor([logit(0.5), logit(0.04), logit(0.04), logit(0.04)])
    assert parts(replace(splat, opacities=opacities)).tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("count", [0, 1])
def test_a_splat_of_next_to_nothing_has_next_to_no_parts(count):
    found = parts(blobs([[0.0, 0.0, 0.0]] * count))
    assert found.tolist() == [0] * count and found.dtype == torch.int64
