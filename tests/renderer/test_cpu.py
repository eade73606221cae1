"""What the compiled renderer promises beyond agreement: the same bits always, any thread, any floating type."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from renderer.scenes import ball, everything, views

from gsdistill.core.structs import Gaussians
from gsdistill.renderer import _bins, _raster
from gsdistill.renderer.base import ALPHA_MIN, render


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def same_bits(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("count", "batch"), [(500, 1), (6000, 1), (3000, 3)])
def test_the_same_bits_in_every_run_and_for_every_number_of_threads(threads, count, batch):
    scene, cameras = ball(count, degree=2, size=0.05), views(batch, 70, 50)
    threads(2)
    first, second = everything(scene, cameras, "cpu"), everything(scene, cameras, "cpu")
    threads(1)
    alone = everything(scene, cameras, "cpu")
    assert same_bits(first, second)
    assert same_bits(first, alone)


def test_several_callers_at_once():
    scene, cameras = ball(100), views(2)
    expected = everything(scene, cameras, "cpu")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: everything(scene, cameras, "cpu"), range(8)))
    assert all(same_bits(expected, one) for one in found)


def test_other_floating_types_come_back_as_they_went_in():
    scene = ball(20)
    single = everything(scene, views(1), "cpu")
    double = everything(scene, views(1), "cpu", dtype=torch.float64)
    assert same_bits(single, double)
    means = scene.means.double().requires_grad_()
    result = render(Gaussians(means, scene.quats, scene.scales, scene.opacities, scene.sh), views(1), torch.zeros(1, 3))
    result.images.sum().backward()
    assert means.grad is not None
    assert result.images.dtype == result.screen.dtype == means.grad.dtype == torch.float64


def test_nothing_is_recorded_without_gradients():
    with torch.no_grad():
        result = render(ball(5), views(1), torch.zeros(1, 3), backend="cpu")
    assert not result.images.requires_grad
    assert not result.screen.requires_grad


def test_the_fast_exponential_is_exact_to_a_millionth():
    x = np.linspace(0, 0.75, 10_001, dtype=np.float32)
    found = np.array([_raster.exp_eight(value) for value in x], np.float64)
    assert np.abs(found / np.exp(-8 * x.astype(np.float64)) - 1).max() < 1.5e-6


@pytest.mark.parametrize("part", ["means", "quats", "scales", "opacities"])
@pytest.mark.parametrize("value", [0.0, 1e4, 1e30, float("inf"), float("nan")])
def test_diverged_parameters_harm_nobody(part, value):
    """Whatever the numbers are: no crash, and the other Gaussians of the scene still get their gradients."""
    scene = ball(20)
    getattr(scene, part)[0] = value
    found = everything(scene, views(2), "cpu")
    assert found["alphas"].isfinite().all()
    assert found["d_means"][1:].isfinite().all()
    assert found["d_means"][1:].any()


def random_splat(seed, width, height):
    """One row of ``_project`` around an image, and its alpha as a function of x and y."""
    random = np.random.default_rng(seed)
    angle, opacity = random.uniform(0, np.pi), random.uniform(0.01, 1)
    long, short = np.exp(random.uniform(-1, 4)), np.exp(random.uniform(-1, 1))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    (a, b), (_, c) = turn @ np.diag([long**2, short**2]) @ turn.T + 0.3 * np.eye(2)
    centre = random.uniform([-20, -20], [width + 20, height + 20])
    level, det = 2 * np.log(opacity / ALPHA_MIN), a * c - b * b
    form = [*centre, 0.5 * c / det, b / c, 0.5 / c, opacity]
    row = [*form, 0, 0, 0, 1, np.sqrt(level * a), np.sqrt(level * c)]

    def alpha(x, y):
        x, y = x - centre[0], y - centre[1]
        return opacity * np.exp(-0.5 * (c * x * x - 2 * b * x * y + a * y * y) / det)

    return np.array([row], np.float32), alpha


@pytest.mark.parametrize("seed", range(20))
def test_a_splat_is_in_exactly_the_tiles_that_it_touches(seed):
    """Brute force: every pixel where alpha reaches 1/255 lies in a listed tile; a tile without any is rarely listed."""
    width, height = 61, 43
    splats, alpha = random_splat(seed, width, height)
    alpha = alpha(np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5)
    columns = -(-width // _bins.WIDE)
    first, last = _bins.bands(splats, 0, height)
    found = np.zeros((last - first + 1, 2), np.int32)
    count = _bins.write_spans(splats, 0, first, last, width, height, found.reshape(-1), 0)
    listed = [
        band * columns + column
        for band, (start, stop) in enumerate(found.tolist(), first)
        for column in range(start, stop + 1)
    ]
    tile = (np.arange(height) // _bins.TALL)[:, None] * columns + np.arange(width) // _bins.WIDE
    needed = set(tile[alpha >= ALPHA_MIN].tolist())
    assert len(set(listed)) == len(listed) == count
    assert needed <= set(listed)
    assert count <= 1.25 * len(needed) + 2


@pytest.mark.parametrize("seed", range(20))
def test_a_tile_walks_the_rows_that_a_splat_touches(seed):
    """Brute force: walked are the rows where alpha reaches 1/255 between the first and the last pixel of the tile."""
    width, height = 61, 43
    splats, alpha = random_splat(seed, width, height)
    batch, ids = np.empty(9 * _raster.BATCH, np.float32), np.zeros(1, np.int32)
    walked = needed = 0
    for top in range(0, height, _bins.TALL):
        for left in range(0, width, _bins.WIDE):
            _raster.prepare(splats, ids, 0, 1, left, top, batch)
            first, last = int(batch[0]), int(batch[_raster.BATCH])
            x, y = left + np.linspace(0.5, _bins.WIDE - 0.5, 200), top + np.arange(_bins.TALL)[:, None] + 0.5
            seen = (alpha(x, y) >= ALPHA_MIN).any(1).nonzero()[0]
            assert all(first <= row <= last for row in seen)
            walked, needed = walked + max(last - first + 1, 0), needed + len(seen)
    assert walked <= 1.1 * needed + 2


INTERPRETED = """
import torch
from renderer.scenes import ball, everything, views
torch.save({count: everything(ball(6, degree=1), views(count, 19, 13), "cpu") for count in (1, 2)}, "{path}")
"""


@pytest.mark.slow
def test_kernels_stay_inside_their_arrays(tmp_path):
    """Uncompiled, Python itself checks every index; compiled, a write too far would spoil somebody else's memory."""
    path = tmp_path / "found.pt"
    program = INTERPRETED.replace("{path}", path.as_posix())
    roots = os.pathsep.join(map(str, Path(__file__).parents[1:3]))
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": roots}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for count, interpreted in torch.load(path).items():
        compiled = everything(ball(6, degree=1), views(count, 19, 13), "cpu")
        for name, value in compiled.items():
            torch.testing.assert_close(interpreted[name], value, rtol=1e-3, atol=1e-4)
