import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from export.decoders import read_compressed_ply
from export.scenes import errors, fidelity, pebble
from plyfile import PlyData
from scipy.spatial import KDTree

from gsdistill.core.structs import Gaussians
from gsdistill.export._chunks import chunks, filled
from gsdistill.export.compressed_ply import CompressedPly
from gsdistill.scene.turn import from_frame


def ball(count: int, deviation: float = 0.03, seed: int = 0) -> Gaussians:
    """Gaussians at random places of a ball of radius 0.5, in no order, none of them quite transparent."""
    g = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    return Gaussians(
        means=directions * 0.5 * torch.rand(count, 1, generator=g) ** (1 / 3),
        quats=torch.randn(count, 4, generator=g),
        scales=math.log(deviation) + 0.3 * torch.randn(count, 3, generator=g),
        opacities=1 + torch.rand(count, generator=g),
        sh=torch.randn(count, 1, 3, generator=g),
    )


def with_floaters(scene: Gaussians, distances: torch.Tensor) -> tuple[Gaussians, torch.Tensor]:
    """The scene with some of its Gaussians far out, and which of its Gaussians are not."""
    g = torch.Generator().manual_seed(1)
    chosen = torch.randperm(len(scene), generator=g)[: len(distances)]
    means = scene.means.clone()
    means[chosen] = torch.nn.functional.normalize(torch.randn(len(chosen), 3, generator=g), dim=1) * distances[:, None]
    others = torch.ones(len(scene), dtype=torch.bool)
    others[chosen] = False
    return replace(scene, means=means), others


def written(scene: Gaussians, folder) -> tuple[Gaussians, Gaussians, list[str]]:
    """What is seen of the file in our axes, the invisible ones, and what was told."""
    path = folder / "a.compressed.ply"
    told = CompressedPly().write(scene, path)
    found = from_frame(read_compressed_ply(path), "rdf")
    seen = found.opacities > -15
    visible, invisible = (found.each(lambda v, which=which: v[which]) for which in (seen, ~seen))
    return visible, invisible, told


def aside(scene: Gaussians, found: Gaussians) -> torch.Tensor:
    """How far each Gaussian of the scene is from the nearest that was read."""
    return torch.from_numpy(KDTree(found.means.double().numpy()).query(scene.means.double().numpy())[0])


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_every_value_is_right_to_half_a_step(tmp_path, degree):
    found = errors("compressed-ply", pebble(400, degree), tmp_path)
    bounds = {"means": 1.7 / 1023 / 2, "scales": 1.5 / 1023 / 2, "opacities": 0.5 / 255, "sh0": 1.78 / 255 / 2}
    bounds |= {"angles": 4e-3} | {f"sh{band}": 4 / 256 for band in range(1, degree + 1)}
    assert found.keys() == bounds.keys()
    assert not {kind: error for kind, error in found.items() if error > 1.001 * bounds[kind]}


def test_what_a_chunk_has_in_common_is_exact(tmp_path):
    found = errors("compressed-ply", pebble(1, 3), tmp_path)
    assert max(found[kind] for kind in ("means", "scales", "sh0")) < 1e-6


def test_without_harmonics_there_is_no_table_of_them(tmp_path):
    CompressedPly().write(pebble(300, 0), tmp_path / "a.compressed.ply")
    file = PlyData.read(str(tmp_path / "a.compressed.ply"))
    assert [(element.name, element.count) for element in file.elements] == [("chunk", 2), ("vertex", 300)]


@pytest.mark.parametrize("distance", [20.0, 200.0, 2e3, 2e7])
def test_floaters_cost_the_others_no_precision(tmp_path, distance):
    scene = ball(2000)
    plain, none, told = written(scene, tmp_path)
    assert not len(none) and told == []
    with_two, others = with_floaters(scene, torch.tensor([distance, distance]))
    found, added, told = written(with_two, tmp_path)
    moved = aside(with_two, found)[others]
    assert len(found) == 2000 and moved.max() < 1.1 * aside(scene, plain).max() < 5e-4
    assert fidelity(with_two, found)[0] > 60
    assert told == [f"{len(added)} invisible Gaussians are added, so that distant Gaussians need not share bounds"]


def test_a_capture_in_random_order_is_fine_near_the_middle(tmp_path):
    distances = 10 ** (1 + 1.477 * torch.rand(100, generator=torch.Generator().manual_seed(2)))  # 10 to 300
    scene, others = with_floaters(ball(20_000, 0.022), distances)
    found, added, told = written(scene, tmp_path)
    moved = aside(scene, found)
    assert moved[others].median() < 9e-5 and moved[others].max() < 3e-4
    assert (moved / scene.means.norm(dim=1))[~others].max() < 0.02
    assert fidelity(scene, found)[0] > 50
    assert len(found) == 20_000 and len(added) < 1000
    assert re.fullmatch(
        r"positions of \d\d of 20,000 Gaussians are rounded by up to 0\.\d+, more than half .*", told[0]
    )


@pytest.mark.parametrize("count", [200, 2000])
def test_two_crowds_far_apart_share_no_chunk(tmp_path, count):
    scene = ball(count)
    scene.means[::2, 0] += 200.0
    found, added, _ = written(scene, tmp_path)
    assert aside(scene, found).max() < 1e-3 and len(found) == count and 0 < len(added) < 256


def test_a_glaring_colour_costs_the_others_none_of_theirs(tmp_path):
    scene = ball(600)
    scene.sh[77, 0, 1] = 1e30
    found, _, _ = written(scene, tmp_path)
    order = torch.from_numpy(KDTree(found.means.numpy()).query(scene.means.numpy())[1])
    apart = (found.sh[order] - scene.sh).abs().amax(dim=(1, 2))
    apart[77] = 0.0
    assert apart.max() < 0.02


@pytest.mark.parametrize("degree", [0, 3])
def test_filling_is_invisible_where_others_are_and_counted_in_the_header(tmp_path, degree):
    scene = pebble(700, degree)
    scene = replace(scene, opacities=scene.opacities.clamp_min(-4.0))
    scene.means[:3] = torch.tensor([50.0, -20.0, 3.0])
    found, added, told = written(scene, tmp_path)
    file = PlyData.read(str(tmp_path / "a.compressed.ply"))
    assert (
        len(found) == 700
        and 0 < len(added) < 256
        and (file["vertex"].data["packed_color"] & 255 == 0).sum() == len(added)
    )
    axes, drawn = "gsdistill frame rdf", "gsdistill renderer {}"
    assert file.comments == [axes, drawn, f"invisible Gaussians that fill up chunks: {len(added)}"]
    assert f"{len(added)} invisible Gaussians" in told[-1]
    assert aside(added, found).max() < 1e-6
    assert aside(scene, found).max() < 1e-3 and aside(found, scene).max() < 1e-3


@pytest.mark.parametrize(
    "means",
    [
        torch.zeros(1, 3),
        torch.ones(700, 3),
        torch.arange(1e3)[:, None] ** 3 * torch.tensor([1.0, -2.0, 0.0]),
        torch.randn(3000, 3, generator=torch.Generator().manual_seed(0)).pow(9),
        torch.tensor([[3e38, -3e38, 1e-38]]).repeat(300, 1) * torch.tensor([1.0, -1.0]).repeat(150)[:, None],
    ],
)
def test_every_gaussian_is_in_one_chunk_and_all_but_the_last_are_full(means):
    scene = replace(ball(len(means)), means=means)
    found = chunks(scene)
    assert np.array_equal(np.sort(np.concatenate(found)), np.arange(len(means)))
    assert max(map(len, found)) <= 256 and len(found[-1]) == min(map(len, found))
    order, filling = filled(found)
    assert len(order) == 256 * (len(found) - 1) + len(found[-1])
    assert np.array_equal(np.sort(order[~filling]), np.arange(len(means)))
    assert all(len(set(order[256 * i : 256 * i + 256])) == len(chunk) for i, chunk in enumerate(found))


def test_what_lies_in_one_place_stays_in_its_order():
    assert np.array_equal(np.concatenate(chunks(replace(ball(700), means=torch.ones(700, 3)))), np.arange(700))


def test_what_the_format_cuts_off_is_told(tmp_path):
    scene = pebble(50, 1)
    scene.sh[:3, 2], scene.scales[4] = 5.0, -25.0
    assert CompressedPly().write(scene, tmp_path / "a.compressed.ply") == [
        "scales of 1 of 50 Gaussians are cut off to -20 .. 20",
        "harmonics above degree 0 of 3 of 50 Gaussians are cut off to -4 .. 4",
    ]
