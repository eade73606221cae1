"""Truths of every kind: exact where a closed form knows it, and the same object is the same truth in each form."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from gsdistill.core.errors import BadFile, Notice
from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.evaluation.references import nearest_of, radius, read_truth, seen_points, truth_of_prompt
from gsdistill.evaluation.surface import surface
from gsdistill.evaluation.truth import evaluate
from gsdistill.evaluation.views import Pictures, held_out, iou, photograph, unseen
from gsdistill.export.ply import Ply
from gsdistill.mesh.zbuffer import draw
from gsdistill.scene.mesh import Part, read_mesh
from gsdistill.scene.viewpoints import orbit

BLUE = (51, 102, 204)


def sphere(path, size=0.75, middle=(0.0, 0.0, 0.0), color=BLUE):
    """Write a sphere of one colour; its corners lie on the true one, and its faces 0.1 % of the size below."""
    ball = trimesh.creation.icosphere(subdivisions=4, radius=size)
    ball.apply_translation(middle)
    ball.visual.face_colors = [*color, 255]
    ball.export(path)
    return path


def plain(corners, color=0.5):
    return Part(corners, lambda points: torch.full((len(points.faces), 3), color, dtype=torch.float64))


def pebbles(count=400, seed=0):
    """Gaussians of many colours in a ball."""
    draws = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=draws), dim=1)
    return Gaussians(
        means=0.6 * directions,
        quats=torch.randn(count, 4, generator=draws),
        scales=torch.full((count, 3), math.log(0.06)) + 0.3 * torch.randn(count, 3, generator=draws),
        opacities=torch.full((count,), 4.0),
        sh=((torch.rand(count, 1, 3, generator=draws) - 0.5) / SH_C0),
    )


@pytest.mark.slow
def test_depths_are_those_of_rays_cut_with_planes():
    """By Moeller and Trumbore, ray after ray and triangle after triangle."""
    corners = torch.from_numpy(np.random.default_rng(0).uniform(-0.7, 0.7, (9, 3, 3)))
    cameras = orbit(3, 12)
    drawn = draw([plain(corners[:4], 0.2), plain(corners[4:], 0.8)], cameras)
    for b, (view, k) in enumerate(zip(cameras.viewmats.double(), cameras.Ks.double(), strict=True)):
        local = (corners @ view[:3, :3].T + view[:3, 3]).numpy()
        for row in range(12):
            for column in range(12):
                ray = np.array([(column + 0.5 - float(k[0, 2])) / float(k[0, 0]), (row + 0.5 - 6) / float(k[1, 1]), 1])
                hits = []
                for a, second, third in local:
                    system = np.stack([-ray, second - a, third - a], axis=1)
                    z, u, v = np.linalg.solve(system, -a)
                    if u >= 0 and v >= 0 and u + v <= 1:
                        hits.append(z)
                expected = min(hits, default=math.inf)
                assert float(drawn.depth[b, row, column, 0]) == pytest.approx(expected, rel=1e-5)
    assert 0.1 < float(drawn.alpha.mean()) < 0.9
    whole = drawn.alpha[..., 0] == 1.0  # and each pixel there has one of the two colours, or both
    assert float(drawn.body[whole].min()) == pytest.approx(0.2) and float(drawn.body[whole].max()) == pytest.approx(0.8)


@pytest.mark.slow
def test_a_mesh_of_a_sphere_is_the_sphere_of_the_shapes_world(tmp_path):
    made, true = read_truth(sphere(tmp_path / "ball.ply")), truth_of_prompt("a blue sphere")
    assert iou(made.seen, true.seen) > 0.995 and iou(made.unseen, true.unseen) > 0.995
    assert float((made.seen.alpha - true.seen.alpha).abs().mean()) < 1e-3
    inside = made.seen.alpha[..., 0] == 1.0
    assert torch.allclose(made.seen.body[inside], torch.tensor(BLUE) / 255, atol=1e-6)
    assert float(true.surface.distance(made.surface.points).abs().max()) < 2e-3
    assert made.things == () and not made.surface.signed


@pytest.mark.slow
def test_the_surface_chamfer_of_spheres_is_their_difference(tmp_path):
    truth = read_truth(sphere(tmp_path / "truth.ply", 0.75))
    parts = read_mesh(sphere(tmp_path / "ours.ply", 0.65))
    seen, below = (Pictures(**vars(draw(parts, cameras))) for cameras in (held_out(), unseen()))
    found = surface(seen, below, truth.surface)
    assert found["surface_to_truth"] == pytest.approx(0.1, abs=2e-3)
    assert found["truth_to_surface"] == pytest.approx(0.1, abs=2e-3)
    exact = surface(seen, below, truth_of_prompt("a red sphere").surface)  # whose distance is a closed form
    assert exact["surface_to_truth"] == pytest.approx(0.1, abs=1e-3)
    assert exact["surface_chamfer"] == pytest.approx(0.1, abs=2e-3)


@pytest.mark.slow
def test_a_splat_that_is_the_truth_is_equal_to_it(tmp_path):
    splat = pebbles()
    Ply().write(splat, tmp_path / "splat.ply")
    found = evaluate(splat, read_truth(tmp_path / "splat.ply"))
    for name in ("iou", "soft_iou", "unseen_iou", "unseen_soft_iou"):
        assert found[name] == pytest.approx(1.0, abs=1e-6)
    for name in ("colour_error", "picture_error", "unseen_picture_error", "surface_chamfer"):
        assert found[name] == pytest.approx(0.0, abs=1e-6)
    assert found["psnr"] == found["unseen_psnr"] == 100.0
    assert not {"name", "name_right", "colour_right", "floaters"} & found.keys(), "that a splat does not know"


def test_a_run_can_be_the_truth(tmp_path):
    Ply().write(pebbles(), tmp_path / "gaussians.ply")
    assert torch.equal(read_truth(tmp_path).surface.points, read_truth(tmp_path / "gaussians.ply").surface.points)


@pytest.mark.slow
def test_axes_are_those_of_the_file(tmp_path):
    """A ball in front of the origin, (x, y, z) in the world, is (y, z, x) in a file whose y is up."""
    world = read_truth(sphere(tmp_path / "world.ply", 0.3, (0.5, 0.1, -0.2)))
    usual = read_truth(sphere(tmp_path / "usual.glb", 0.3, (0.1, -0.2, 0.5)))
    named = read_truth(sphere(tmp_path / "named.ply", 0.3, (0.1, -0.2, 0.5)), "y-up")
    for truth in (usual, named):
        assert iou(truth.seen, world.seen) > 0.99
        assert torch.allclose(truth.surface.points.mean(0), world.surface.points.mean(0), atol=2e-3)


def test_axes_that_are_taken_for_granted_are_told(tmp_path):
    Ply(frame="rdf").write(pebbles(), tmp_path / "named.ply")
    unnamed = tmp_path / "unnamed.ply"
    unnamed.write_bytes((tmp_path / "named.ply").read_bytes().replace(b"comment gsdistill frame rdf\n", b"", 1))
    with pytest.warns(Notice, match="does not name its axes: taken to be in gsdistill's .*; --truth-frame rdf is for"):
        guessed = read_truth(unnamed)
    told, named = read_truth(unnamed, "rdf"), read_truth(tmp_path / "named.ply")
    assert torch.equal(told.surface.points, named.surface.points) and not torch.equal(
        guessed.surface.points, named.surface.points
    )


def test_points_lie_where_the_pixels_look():
    splat = pebbles(1)
    small = replace(splat, scales=torch.full((1, 3), math.log(0.03)), means=torch.tensor([[0.2, -0.3, 0.4]]))
    points = seen_points(photograph(small), photograph(small, unseen()))
    assert torch.allclose(points.mean(0).float(), small.means[0], atol=2e-3) and len(points) > 100


@pytest.mark.slow
def test_a_truth_of_another_size_is_told_and_one_out_of_sight_refused(tmp_path):
    splat = pebbles()
    with pytest.warns(Notice, match=r"reaches 0\.2 from the origin, the splat 0\.8\d+; nothing is aligned"):
        read_truth(sphere(tmp_path / "small.ply", 0.2), beside=splat)
    with pytest.warns(Notice, match=r"reaches 1\.5 from the origin, and the cameras see 1\.09"):
        read_truth(sphere(tmp_path / "large.ply", 1.5))
    with pytest.raises(BadFile, match=r"no camera sees it; it reaches 90\.\d from the origin, and must fill"):
        read_truth(sphere(tmp_path / "far.ply", 0.5, (0.0, 0.0, 90.0)))
    with pytest.raises(BadFile, match=r"truth\.txt: a truth is a splat \(.*\.spz\) or a mesh \(.*\.stl"):
        (tmp_path / "truth.txt").write_text("a torus")
        read_truth(tmp_path / "truth.txt")


def test_the_radius_of_a_splat_leaves_floaters_out():
    splat = pebbles(1000)
    strays = replace(splat, means=torch.cat([splat.means[:-2], torch.tensor([[9.0, 0, 0], [0, 7.0, 0]])]))
    assert radius(strays) == pytest.approx(radius(splat), rel=0.1) and 0.7 < radius(splat) < 1.0


@pytest.mark.parametrize("away", [0.0, 2.0, 5.0, 80.0])
def test_the_mean_distance_from_afar_is_that_of_every_pair_to_three_digits(away):
    """A plane, and a sphere around the points, all of which is as far away."""
    random = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(400, 3, generator=random, dtype=torch.float64), dim=1)
    around = torch.nn.functional.normalize(torch.randn(4000, 3, generator=random, dtype=torch.float64), dim=1)
    flat = around * torch.tensor([1.0, 1.0, 0.0]) * (1.0 + away)
    flat[:, 2] = 1.0 + away
    for targets in (around * (1.0 + away), flat):
        pairs = torch.cdist(points, targets, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
        assert float(nearest_of(targets, points).mean()) == pytest.approx(float(pairs.mean()), rel=5e-4)
