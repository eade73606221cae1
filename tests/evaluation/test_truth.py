"""Splats made on true surfaces score as right; the same moved, recoloured or spoilt are called wrong."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gsdistill.core.errors import BadFile, PromptError
from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.evaluation.naming import distances as name_distances
from gsdistill.evaluation.naming import nearest, unexplained
from gsdistill.evaluation.references import surface_points, truth_of_prompt
from gsdistill.evaluation.surface import floaters, splat_to_truth, truth_to_splat, visibility
from gsdistill.evaluation.truth import evaluate, truth_views
from gsdistill.evaluation.views import (
    Pictures,
    colour_error,
    held_out,
    iou,
    photograph,
    picture_error,
    psnr,
    seen_colours,
    soft_iou,
    truth,
    unseen,
)
from gsdistill.export.ply import Ply
from gsdistill.run.measure import evaluate_run
from gsdistill.scene.viewpoints import orbit
from gsdistill.worlds.base import Thing, paint, world_named
from gsdistill.worlds.shapes.captions import COLORS, SHAPES, object_name, parse
from gsdistill.worlds.shapes.raycast import AMBIENT, LIGHT, trace
from gsdistill.worlds.shapes.solids import distances, normals
from gsdistill.worlds.shapes.world import build, every_layout

WORLD = world_named("shapes")
DEVIATION = 0.012


def cloud(prompt, count=6000, opacity=4.0, inset=2 * DEVIATION):
    """Small opaque Gaussians just below the true surface of a prompt's object, lit as the truth is."""
    things = parse(prompt)
    world = build(things)
    points = surface_points(WORLD, tuple(thing.shape for thing in things), count, seed=1).numpy()
    part = np.abs(np.stack([distances(world.parts[i : i + 1], points) for i in range(len(things))])).argmin(0)
    normal = normals(world.parts, points)
    light = AMBIENT + (1 - AMBIENT) * (0.5 + 0.5 * normal @ np.array(LIGHT))
    return splat(points - inset * normal, world.colors[part] * light[:, None], opacity)


def splat(points, colours, opacity=4.0, deviation=DEVIATION):
    points = torch.as_tensor(np.asarray(points)).float()
    return Gaussians(
        means=points,
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(len(points), 1),
        scales=torch.full((len(points), 3), math.log(deviation)),
        opacities=torch.full((len(points),), float(opacity)),
        sh=((torch.as_tensor(np.asarray(colours)).float() - 0.5) / SH_C0)[:, None],
    )


def joined(*clouds):
    return Gaussians(
        *(torch.cat([getattr(one, name) for one in clouds]) for name in ("means", "quats", "scales", "opacities", "sh"))
    )


@pytest.fixture(scope="module")
def red_sphere():
    return cloud("a red sphere")


@pytest.fixture(scope="module")
def right(red_sphere):
    """The figures of the red sphere against itself."""
    return evaluate(red_sphere, "a red sphere")


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["a red sphere", "a blue cube", "a white mug", "a pink star"])
def test_a_splat_on_the_true_surface_is_right(prompt):
    figures = evaluate(cloud(prompt), truth_of_prompt(prompt, WORLD))
    assert figures["name"] == object_name(parse(prompt)) and figures["name_right"] is True
    assert figures["iou"] > (0.95 if "sphere" in prompt or "cube" in prompt else 0.85)
    assert figures["colour_right"] is True and figures["colour_error"] < 0.06
    assert figures["centre_chamfer"] < 0.03 and figures["splat_to_truth"] < 0.03 and figures["truth_to_splat"] < 0.04
    assert figures["floaters"] == 0.0 and figures["gaussians"] == 6000


@pytest.mark.slow
def test_a_stack_is_named_part_by_part():
    prompt = "a green cone on top of a purple box"
    figures = evaluate(cloud(prompt), prompt)
    assert figures["name"] == "a green cone on a purple cube" and figures["name_right"] and figures["colour_right"]
    swapped = evaluate(cloud("a purple cone on a green cube"), prompt)
    assert swapped["name"] == "a purple cone on a green cube"
    assert not swapped["name_right"] and not swapped["colour_right"] and swapped["iou"] == figures["iou"]


@pytest.mark.slow
def test_every_solid_is_told_from_every_other():
    for shape in SHAPES:
        assert nearest(photograph(cloud(f"an orange {shape}", 3000)), WORLD, parse("a red cube")) == (
            Thing("orange", shape),
        )


def test_a_wrong_colour_is_called_wrong(red_sphere):
    figures = evaluate(red_sphere, "a green sphere")
    assert figures["name"] == "a red sphere" and not figures["name_right"] and not figures["colour_right"]
    assert figures["colour_error"] > 0.2 and figures["iou"] > 0.95


@pytest.mark.slow
def test_a_wrong_shape_is_called_by_its_name():
    figures = evaluate(cloud("a yellow cylinder"), "a yellow cube")
    assert figures["name"] == "a yellow cylinder" and not figures["name_right"] and figures["colour_right"]
    assert figures["iou"] < 0.9 and figures["splat_to_truth"] > 0.03


@pytest.mark.slow
def test_a_shift_costs_silhouette_and_surface(red_sphere, right):
    moved = evaluate(replace(red_sphere, means=red_sphere.means + torch.tensor([0.0, 0.0, 0.4])), "a red sphere")
    assert moved["iou"] < 0.7 < right["iou"] and moved["centre_chamfer"] > 5 * right["centre_chamfer"]
    assert moved["floaters"] > 0.2  # the part that sticks out by more than 0.15


@pytest.mark.slow
def test_a_turned_mug_is_not_the_mug():
    mug = cloud("a blue mug")
    turned = replace(mug, means=mug.means * torch.tensor([-1.0, -1.0, 1.0]))
    assert evaluate(turned, "a blue mug")["iou"] < evaluate(mug, "a blue mug")["iou"] - 0.05


def test_silhouettes_that_do_not_meet_have_iou_zero_and_the_worst_colour():
    alpha = torch.zeros(2, 8, 8, 1)
    alpha[:, :3] = 1.0
    first = Pictures(alpha.expand(2, 8, 8, 3) * 0.5, alpha)
    second = Pictures(alpha.flip(1).expand(2, 8, 8, 3) * 0.5, alpha.flip(1))
    assert iou(first, second) == 0.0 and colour_error(first, second) == 1.0
    assert iou(first, first) == 1.0 and colour_error(first, first) == 0.0
    half = Pictures(first.body, alpha * (torch.arange(8) < 4)[None, None, :, None])
    assert iou(first, half) == pytest.approx(0.5)


def test_whole_pictures_are_compared_by_closed_forms():
    """Over white a black square of alpha a is a plane of 1 - a."""
    alpha = torch.zeros(2, 8, 8, 1)
    alpha[:, 2:6, 2:6] = 1.0
    black = Pictures(torch.zeros(2, 8, 8, 3), alpha)
    half = Pictures(black.body, 0.5 * alpha)
    assert soft_iou(black, half) == pytest.approx(0.5) and soft_iou(black, black) == 1.0
    assert psnr(black, black) == 100.0 and picture_error(black, black) == 0.0
    assert psnr(black, half) == pytest.approx(-10 * math.log10(0.25 * 0.25))  # a quarter of the pixels differ by 1/2
    assert picture_error(black, half) == pytest.approx(0.5) and colour_error(black, half) == 1.0
    grey = Pictures(0.1 * alpha.expand(2, 8, 8, 3), alpha)
    assert picture_error(black, grey) == pytest.approx(0.1) == colour_error(black, grey)
    beside = alpha.clone()
    beside[:, :2, :4] = 1.0  # 8 pixels more than the 16: their colour counts for whole pictures alone
    assert colour_error(Pictures(black.body, beside), black) == 0.0
    assert picture_error(Pictures(black.body, beside), black) == pytest.approx(8 / 24)


def test_colours_do_not_depend_on_the_coverage():
    alpha = torch.rand(1, 8, 8, 1, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.6
    color = torch.tensor([0.2, 0.4, 0.6])
    assert torch.allclose(Pictures(alpha * color, alpha).colours, color.expand(1, 8, 8, 3), atol=1e-6)


@pytest.mark.parametrize("color", COLORS)
def test_the_truth_scores_best_and_shows_its_own_colours(color):
    things = (Thing(color, "cone"), Thing("cyan", "table"))
    true = truth(WORLD, things)
    assert seen_colours(true, WORLD, ("cone", "table")) == (color, "cyan")
    assert iou(true, true) == 1.0 and colour_error(true, true) == 0.0


def test_nothing_at_all_scores_worst(red_sphere):
    clear = replace(red_sphere, opacities=torch.full_like(red_sphere.opacities, -20.0))
    figures = evaluate(clear, "a red sphere")
    assert figures["iou"] == 0.0 and figures["colour_error"] == 1.0 and not figures["colour_right"]
    assert figures["splat_to_truth"] == figures["truth_to_splat"] == figures["centre_chamfer"] == 2.0
    assert figures["surface_chamfer"] == 2.0 and figures["name"] == "nothing known" and figures["soft_iou"] < 1e-6
    json.dumps(figures, allow_nan=False)


def test_floaters_are_counted_by_opacity(red_sphere):
    far = splat(np.array([[1.2, 0.0, 0.0]] * 600), np.full((600, 3), 0.5))
    assert floaters(joined(red_sphere, far), truth_of_prompt("a white sphere").surface) == pytest.approx(600 / 6600)
    faint = replace(far, opacities=torch.full((600,), -4.0))
    assert floaters(joined(red_sphere, faint), truth_of_prompt("a white sphere").surface) < 0.01
    near = splat(np.array([[0.85, 0.0, 0.0], [0.0, 0.0, 0.0]]), np.full((2, 3), 0.5))  # 0.1 outside, and hidden inside
    assert floaters(joined(red_sphere, near), truth_of_prompt("a white sphere").surface) == 0.0


def test_surface_distances_are_those_of_a_shell_around_a_sphere(red_sphere):
    points = surface_points(WORLD, ("sphere",), 6000, seed=2).numpy()
    for radius in (0.65, 0.85):
        shell = splat(points * radius / 0.75, np.full((6000, 3), 0.5))
        assert splat_to_truth(shell, truth_of_prompt("a white sphere").surface) == pytest.approx(0.1, abs=1e-6)
        assert truth_to_splat(shell, truth_of_prompt("a white sphere").surface) == pytest.approx(0.1, abs=3e-3)
    assert truth_to_splat(red_sphere, truth_of_prompt("a white sphere").surface) < 0.035


def test_distance_to_the_nearest_gaussian_is_brute_force():
    means = np.random.default_rng(0).uniform(-1, 1, (40, 3))
    few = splat(means, np.full((40, 3), 0.5))
    few = replace(few, opacities=torch.cat([torch.full((20,), 3.0), torch.full((20,), -3.0)]))  # half of them too faint
    points = surface_points(WORLD, ("star",)).numpy()
    brute = np.linalg.norm(points[:, None] - few.means[:20].double().numpy(), axis=2).min(1).mean()
    assert truth_to_splat(few, truth_of_prompt("a white star", world_named("shapes")).surface) == pytest.approx(
        brute, rel=1e-9
    )


@pytest.mark.slow
def test_a_wrong_underside_costs_in_the_unseen_views():
    base = cloud("a purple pyramid")
    below = ((base.means[:, 2] + 0.52 - 2 * DEVIATION).abs() < 1e-4)[:, None, None]
    figures = evaluate(replace(base, sh=torch.where(below, (0.9 - 0.5) / SH_C0, base.sh)), "a purple pyramid")
    before = evaluate(base, "a purple pyramid")
    assert figures["colour_error"] < before["colour_error"] + 0.03
    assert figures["unseen_colour_error"] > before["unseen_colour_error"] + 0.1
    assert figures["unseen_psnr"] < before["unseen_psnr"] - 3


@pytest.mark.slow
def test_a_missing_underside_costs_surface(red_sphere, right):
    upper = red_sphere.means[:, 2] > -0.4
    figures = evaluate(red_sphere.each(lambda value: value[upper]), "a red sphere")
    assert figures["unseen_soft_iou"] < right["unseen_soft_iou"] - 0.02
    assert figures["truth_to_surface"] > 3 * right["truth_to_surface"]


@pytest.mark.slow
def test_a_floater_in_the_hole_costs_what_a_person_sees():
    torus = cloud("a red torus")
    green = splat(np.random.default_rng(0).normal(size=(300, 3)) * 0.08, np.tile([0.1, 0.7, 0.1], (300, 1)), 4.0, 0.03)
    before, after = (evaluate(scene, "a red torus") for scene in (torus, joined(torus, green)))
    assert after["colour_error"] < before["colour_error"] + 0.03  # which looks only where both are
    assert after["picture_error"] > before["picture_error"] + 0.03 and after["psnr"] < before["psnr"] - 3
    assert after["unseen_picture_error"] > before["unseen_picture_error"] + 0.04
    assert after["surface_to_truth"] > before["surface_to_truth"]


@pytest.mark.slow
def test_what_is_far_from_everything_is_nothing_known(red_sphere):
    draws = torch.Generator().manual_seed(0)
    speckled = replace(red_sphere, sh=(torch.rand(6000, 1, 3, generator=draws) - 0.5) / SH_C0)
    grey = replace(red_sphere, sh=torch.zeros_like(red_sphere.sh))
    scattered = replace(red_sphere, means=red_sphere.means + 0.4 * torch.randn(6000, 3, generator=draws))
    clear = replace(red_sphere, opacities=torch.full_like(red_sphere.opacities, -20.0))
    for ruined in (speckled, grey, scattered, clear):
        assert nearest(photograph(ruined), WORLD, parse("a red cube")) is None
    figures = evaluate(speckled, "a red sphere")
    assert figures["name"] == "nothing known" and not figures["name_right"] and not figures["colour_right"]
    assert seen_colours(photograph(grey), WORLD, ("sphere",)) == (None,)


@pytest.mark.slow
def test_what_is_left_of_nothing_is_all():
    blank = torch.zeros(32, 128, 128, 4)
    things, empty = parse("a brown chair"), Pictures(blank[..., :3], blank[..., 3:])
    assert unexplained(name_distances(empty, WORLD, things), WORLD, things) == pytest.approx(1.0)
    left = unexplained(name_distances(truth(WORLD, things), WORLD, things), WORLD, things)
    assert left < 0.01  # its edges have other numbers of rays


@pytest.mark.slow
def test_what_is_hidden_does_not_count(red_sphere):
    shell = replace(red_sphere, scales=red_sphere.scales + 1.0)  # wide enough to leave no holes
    core = splat(np.random.default_rng(0).normal(size=(500, 3)) * 0.1, np.zeros((500, 3)))
    both = joined(shell, core)
    assert splat_to_truth(both, truth_of_prompt("a white sphere").surface) == pytest.approx(
        splat_to_truth(shell, truth_of_prompt("a white sphere").surface), abs=1e-3
    )
    seen = visibility(both)
    assert float(seen[6000:].sum()) < 1e-3 * float(seen.sum())
    assert splat_to_truth(core, truth_of_prompt("a white sphere").surface) > 0.5


def test_visibility_adds_up_to_what_is_opaque(red_sphere):
    assert float(visibility(red_sphere).sum()) == pytest.approx(float(photograph(red_sphere).alpha.sum()), rel=1e-4)


@pytest.mark.parametrize("names", [("sphere",), ("mug",), ("cube", "table")])
def test_surface_points_lie_on_the_surface(names):
    points = surface_points(WORLD, names).numpy()
    assert points.shape == (4096, 3) and np.abs(distances(every_layout()[names], points)).max() < 1e-6
    assert np.array_equal(points, surface_points.__wrapped__(WORLD, names).numpy())


def test_surface_points_are_even_by_area():
    sphere = surface_points(WORLD, ("sphere",), 20000).numpy() / 0.75
    for axis in range(3):  # by Archimedes each coordinate of an even sphere is uniform
        counts = np.histogram(sphere[:, axis], 20, (-1, 1))[0]
        assert 5 < ((counts - 1000) ** 2 / 1000).sum() < 44
    cylinder = surface_points(WORLD, ("cylinder",), 20000).numpy()
    lids = (np.abs(np.abs(cylinder[:, 2]) - 0.65) < 1e-5).mean()
    assert lids == pytest.approx(0.5 / (0.5 + 1.3), rel=0.04)  # 2 pi r^2 of 2 pi r (r + h)


def test_name_distances_are_mean_square_differences():
    ours = photograph(cloud("a red cube on a blue table", 2000))
    found = name_distances(ours, WORLD, parse("a red cube"))
    assert found.shape == (49, 11, 11) and (found >= 0).all()
    small = torch.nn.functional.avg_pool2d(torch.cat([ours.body, ours.alpha], -1)[::2].permute(0, 3, 1, 2), 4)
    small = small.permute(0, 2, 3, 1)
    cameras = held_out(32)
    for things in (parse("a brown chair"), parse("a red cube on a blue table"), parse("white cone on a green torus")):
        world = build(things)
        body, alpha = paint(trace(world.parts, cameras, 2), torch.from_numpy(world.colors), torch.zeros(32, 3))
        body, alpha = body[::2], alpha[::2]
        composed = body + 0.5 * (1 - alpha) - small[..., :3] - 0.5 * (1 - small[..., 3:])
        difference = torch.cat([composed, alpha - small[..., 3:]], -1)
        layout = list(every_layout()).index(tuple(thing.shape for thing in things))
        colors = [list(COLORS).index(thing.color) for thing in things] + [0]
        assert float(found[layout, colors[0], colors[1]]) == pytest.approx(float((difference**2).mean()), rel=1e-4)


def test_cameras_are_held_out_and_all_around():
    cameras = held_out()
    assert len(cameras) == 32 and cameras.elevations.min() > -10 and cameras.elevations.max() < 60
    off = torch.remainder(cameras.azimuths, 45.0)
    assert torch.minimum(off, 45 - off).min() > 1.0
    gaps = torch.diff(torch.cat([cameras.azimuths.sort().values, cameras.azimuths.min()[None] + 360]))
    assert gaps.max() < 22.5


def test_unseen_cameras_stand_where_no_run_looks_from():
    cameras = unseen()
    low = cameras.elevations < -30
    assert len(cameras) == 16 and int(low.sum()) == 12 and float(cameras.elevations[~low].min()) > 75
    assert float(cameras.elevations.min()) > -60
    gaps = torch.diff(cameras.azimuths[low].sort().values)
    assert gaps.max() < 60


def test_truth_views_are_the_object_over_its_background():
    cameras = orbit(2, 32)
    white, blue = truth_views("a red sphere", cameras), truth_views("a red sphere", cameras, (0.0, 0.0, 1.0))
    assert white.shape == (2, 32, 32, 3) and torch.equal(white[0, 0, 0], torch.ones(3))
    assert torch.equal(blue[0, 0, 0], torch.tensor([0.0, 0.0, 1.0])) and torch.equal(white[:, 16, 16], blue[:, 16, 16])
    assert white[0, 16, 16, 0] > 4 * white[0, 16, 16, 1]


def test_figures_are_plain_and_the_same_every_time(red_sphere, right):
    live = replace(red_sphere, means=red_sphere.means.clone().requires_grad_())
    assert evaluate(live, "the RED ball!") == right == json.loads(json.dumps(right, allow_nan=False))
    assert live.means.grad is None
    assert {type(value) for value in right.values()} == {str, bool, float, int}


def test_a_run_folder_is_read(tmp_path, red_sphere, right):
    Ply().write(red_sphere, tmp_path / "gaussians.ply")
    (tmp_path / "config.yaml").write_text("prompt: a red sphere\nseed: 3\n")
    assert evaluate_run(tmp_path) == right


def test_a_folder_that_is_no_run_is_refused_in_one_sentence(tmp_path, red_sphere):
    def message():
        with pytest.raises(BadFile) as caught:
            evaluate_run(tmp_path / "run")
        return str(caught.value)

    run = tmp_path / "run"
    assert message() == f"{run} is not the folder of a run: there is no such folder"
    run.mkdir()
    assert message() == f"{run} is not the folder of a run: it lacks config.yaml"
    (run / "config.yaml").write_text("seed: 3\n")
    assert message() == f"{run / 'config.yaml'} names no prompt"
    (run / "config.yaml").write_text("prompt: a red cube\n")
    assert message() == f"{run} is not the folder of a finished run: it lacks gaussians.ply"
    (run / "gaussians.ply").write_text("no splat")
    assert "not a splat that is read" in message()


def test_a_prompt_without_a_known_object_is_refused(red_sphere):
    text = (
        "evaluation on truth needs a prompt of the world of objects, '[a] [colour] noun [on [a] [colour] noun]'; "
        "the object of 'a corgi' is not known"
    )
    for call in (lambda: evaluate(red_sphere, "a corgi"), lambda: truth_views("a corgi", orbit(1, 8))):
        with pytest.raises(PromptError) as caught:
            call()
        assert str(caught.value) == text
