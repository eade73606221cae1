"""What every initialiser of points shares: thinning, placing, sizes, and the settings as flags."""

import math
import re
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest
import torch

from gsdistill.cli import flags
from gsdistill.cli.main import execute
from gsdistill.core.errors import BadFile, ConfigError
from gsdistill.core.structs import SH_C0, PointCloud
from gsdistill.scene.init.base import CloudInitialiser, _crowded, draw_seed
from gsdistill.scene.init.mesh import Mesh
from gsdistill.settings.config import from_dict, to_dict
from gsdistill.settings.registry import load, names


@dataclass(frozen=True, kw_only=True)
class Some(CloudInitialiser):
    """Points of a test."""

    path: Path  # required, behind settings with defaults
    shift: float = 0.0  # of all points

    def cloud(self, prompt, generator, device):
        points = torch.randn(300, 3, generator=generator) * torch.tensor([1.0, 2.0, 0.5]) + self.shift
        return PointCloud(points, torch.rand(300, 3, generator=generator))


def create(seed=0, **settings):
    return Some(path=Path("x"), **settings).create("", torch.Generator().manual_seed(seed))


def brute_force(means):
    means = means.double().numpy()
    return np.sort(np.linalg.norm(means[:, None] - means[None], axis=-1), axis=1)[:, 1:4].mean(axis=1)


def test_sizes_are_the_mean_distance_to_the_three_nearest():
    scene = create(scale=0.7)
    assert np.allclose(scene.scales.exp().numpy(), 0.7 * brute_force(scene.means)[:, None], rtol=1e-5)


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_the_box_is_centred_and_the_farthest_point_lies_at_the_radius(shift):
    scene = create(radius=0.8, shift=shift)
    assert torch.allclose(scene.means.norm(dim=1).max(), torch.tensor(0.8))
    assert torch.allclose(scene.means.amin(dim=0), -scene.means.amax(dim=0), atol=1e-6)


def test_placing_keeps_shape_and_colours():
    made = Some(path=Path("x")).cloud("", torch.Generator().manual_seed(0), "cpu")
    scene = create()
    scales = (scene.means[1:] - scene.means[0]) / (made.points[1:] - made.points[0])
    assert torch.allclose(scales, scales.mean().expand_as(scales), rtol=1e-3)
    assert torch.allclose(0.5 + SH_C0 * scene.sh[:, 0], made.colors, atol=1e-6)


def test_a_large_cloud_is_thinned_to_some_of_its_points():
    made = Some(path=Path("x")).cloud("", torch.Generator().manual_seed(0), "cpu")
    first, second, other = create(limit=100), create(limit=100), create(1, limit=100)
    assert len(first) == 100 and torch.equal(first.means, second.means) and not torch.equal(first.means, other.means)
    colors = {tuple(row) for row in made.colors.numpy().round(4)}
    assert {tuple(row) for row in (0.5 + SH_C0 * first.sh[:, 0]).numpy().round(4)} <= colors
    assert np.allclose(first.scales[:, 0].exp().numpy(), brute_force(first.means), rtol=1e-5)  # after thinning


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (torch.eye(3), "at least four points"),
        (torch.ones(9, 3), "not all in one place"),
        (torch.tensor([[0.0, 0.0, float("nan")], *torch.eye(4, 3).tolist()]), "1 of its 5 points are NaN or infinite"),
    ],
)
def test_clouds_that_carry_no_gaussians(points, said):
    with pytest.raises(BadFile, match=said):
        Some(path=Path("x")).dress(PointCloud(points, torch.zeros_like(points)), torch.Generator(), "here")


def test_seeds_are_drawn_from_the_run():
    first, second = torch.Generator().manual_seed(4), torch.Generator().manual_seed(4)
    seeds = [draw_seed(first) for _ in range(3)]
    assert seeds == [draw_seed(second) for _ in range(3)] and len(set(seeds)) == 3
    assert all(0 <= seed < 2**62 for seed in seeds)


def test_a_required_setting_behind_defaults_goes_through_yaml_and_flags():
    made = from_dict(Some, {"path": "a.ply", "opacity": 0.5})
    assert made == Some(path=Path("a.ply"), opacity=0.5) == from_dict(Some, to_dict(made))
    with pytest.raises(ConfigError, match="the setting 'path' is missing"):
        from_dict(Some, {})
    given = flags.parse_flags([(Mesh, {})], ["--path", "b.glb", "--up", "y", "--scale", "2"], "test", "")
    assert from_dict(Mesh, given) == Mesh(path=Path("b.glb"), up="y", scale=2.0)


@pytest.mark.parametrize("name", names("gsdistill.scene.init"))
def test_help_shows_every_setting_of_every_initialiser(name, capsys):
    assert execute(["generate", "--init", name, "--help-all"]) == 0
    shown = capsys.readouterr().out
    for field in fields(load("gsdistill.scene.init", name)):
        assert re.search(rf"--init\.{field.name.replace('_', '-')}\b", shown)


def test_points_beyond_the_limit_are_refused_rather_than_thinned():
    with pytest.raises(ConfigError, match=r"init\.count = 60000 exceeds init\.limit = 50000; raise the limit too"):
        Mesh(path=Path("x.glb"), count=60_000)


def test_sizes_by_the_root_of_the_mean_square_and_one_size_for_all():
    scene = create(spacing="rms", scale=0.7)
    places = scene.means.double().numpy()
    squares = np.sort(((places[:, None] - places[None]) ** 2).sum(-1), axis=1)[:, 1:4].mean(axis=1)
    assert np.allclose(scene.scales.exp().numpy(), 0.7 * squares[:, None] ** 0.5, rtol=1e-5)
    fixed = create(deviation=0.02)
    assert torch.allclose(fixed.scales.exp(), torch.full((300, 3), 0.02)) and torch.equal(fixed.means, scene.means)


def test_colours_of_all_are_grey_or_random():
    grey, random, usual = create(colors="grey"), create(colors="random"), create()
    assert not grey.sh.any() and torch.equal(random.means, usual.means)
    colors = 0.5 + SH_C0 * random.sh[:, 0]
    assert colors.min() >= -1e-6 and colors.max() <= 1 + 1e-6 and (colors.std(dim=0) - 12**-0.5).abs().max() < 0.03
    assert np.abs(np.corrcoef(colors.T.numpy(), usual.sh[:, 0].T.numpy())[:3, 3:]).max() < 0.2


def test_copies_lie_at_the_same_offsets_from_every_point_crowded_at_the_middle():
    """A distance and a polar angle that are uniform: means 1/2 and pi/2, deviations of 1 and pi over the root of 12."""
    made = Some(path=Path("x")).cloud("", torch.Generator().manual_seed(0), "cpu")
    scene = create(radius=0.9, copies=500, spread=0.05)
    assert len(scene) == 300 * 500 and torch.equal(scene.sh[:500], scene.sh[:1].expand(500, -1, -1))
    around = scene.means.reshape(300, 500, 3).double()
    apart = around - around.mean(dim=1, keepdim=True)
    assert torch.allclose(apart, apart[:1].expand_as(apart), atol=1e-5)
    size = (made.points[1] - made.points[0]).norm() / (around[1] - around[0]).mean(dim=0).norm()
    generator = torch.Generator().manual_seed(0)
    Some(path=Path("x")).cloud("", generator, "cpu")
    offsets = _crowded(500, generator).double()
    assert torch.allclose(apart[0] * size, 0.05 * (offsets - offsets.mean(dim=0)), atol=1e-5)
    radii, polar = offsets.norm(dim=-1), torch.acos(offsets[:, 2] / offsets.norm(dim=-1))
    for values, width in ((radii, 1.0), (polar, math.pi)):
        assert abs(values.mean() - width / 2) < 0.04 * width and abs(values.std() - width * 12**-0.5) < 0.02 * width
    assert create(copies=1, spread=0.05).means.equal(create().means)
    with pytest.raises(ConfigError, match=r"init.copies = 4 with init.spread = 0 are in one place"):
        create(copies=4)


def test_a_shell_is_uniform_near_the_points_and_has_their_colours():
    """Two points far apart: the shell is an eighth of a ball at two corners of the box, each in its colour."""
    corners = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0.001, 0, 0], [0, 0.001, 0]])
    colors = torch.tensor([[0.1, 0.1, 0.1], [0.7, 0.7, 0.7], [0.1, 0.1, 0.1], [0.1, 0.1, 0.1]])
    settings = Some(path=Path("x"), radius=None, shell=200_000, shell_reach=0.3, shell_tint=0.2, limit=10**6)
    scene = settings.dress(PointCloud(corners, colors), torch.Generator().manual_seed(0), "here")
    places, shades = scene.means[:-4] * 3**0.5, 0.5 + SH_C0 * scene.sh[:-4, 0]
    ends = places.norm(dim=-1), (1 - places).norm(dim=-1)
    for distance, color in zip(ends, (0.1, 0.7), strict=True):
        near = distance < 0.302
        assert abs(int(near.sum()) / 200_000 - math.pi / 6 * 0.3**3) < 0.0012  # an eighth of a ball each
        assert shades[near].min() >= color - 1e-6 and shades[near].max() <= color + 0.2 + 1e-6
        assert abs(float(shades[near].mean()) - color - 0.1) < 0.005
    assert torch.allclose(scene.means[-4:] * 3**0.5, corners, atol=1e-6)
    assert (torch.minimum(*ends) < 0.302).all()
