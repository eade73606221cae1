"""Splats of everyday objects: measured against the nearest model, and named among all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gsdistill.worlds.objects as objects_world
from gsdistill.core.errors import PromptError
from gsdistill.core.structs import SH_C0, Gaussians
from gsdistill.evaluation.naming import distances, nearest
from gsdistill.evaluation.references import truth_of_prompt, world_that_knows
from gsdistill.evaluation.truth import evaluate
from gsdistill.evaluation.views import Pictures, held_out, truth
from gsdistill.worlds.base import world_named
from gsdistill.worlds.objects.catalogue import models
from gsdistill.worlds.objects.meshes import folder, mesh_of
from gsdistill.worlds.objects.surface import sample
from objects import needs_meshes

WORLD = world_named("objects")
pytestmark = needs_meshes


def cloud(name: str, count: int = 4000, color: tuple[float, float, float] | None = None) -> Gaussians:
    """Small opaque Gaussians on a model, in its own colours or in one."""
    mesh = mesh_of(models()[name], folder())
    corners = mesh.vertices[mesh.faces]
    rng = np.random.default_rng(0)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    faces = rng.choice(len(corners), count, p=areas / areas.sum())
    points = np.stack([sample(corners[face : face + 1], 1, rng)[0] for face in faces])
    colors = torch.from_numpy(0.75 * mesh.colors[faces]).float()
    if color:
        painted = torch.from_numpy(mesh.shades[faces])[:, None]
        colors = torch.where(painted > 0, 0.75 * painted * torch.tensor(color), colors)
    return Gaussians(
        means=torch.from_numpy(points).float(), quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        scales=torch.full((count, 3), -4.2), opacities=torch.full((count,), 5.0), sh=((colors - 0.5) / SH_C0)[:, None],
    )  # fmt: skip


@pytest.mark.slow
def test_the_nearest_of_the_models_that_are_meant_is_measured_against():
    figures = evaluate(cloud("chair_05"), truth_of_prompt("a chair", WORLD))
    assert figures["model"] == "chair_05" and figures["name_right"] and figures["colour_right"]
    assert figures["iou"] > 0.85 and figures["psnr"] > 18 and figures["surface_chamfer"] < 0.03
    assert "floaters" not in figures  # its meshes are not closed


@pytest.mark.slow
def test_another_noun_and_another_colour_are_wrong():
    burger = cloud("burger_01")
    assert not evaluate(burger, truth_of_prompt("a sofa", WORLD))["name_right"]
    blue = WORLD.palette["blue"]
    for prompt, right in (("a blue sofa", True), ("a red sofa", False)):
        figures = evaluate(cloud("sofa_01", color=blue), truth_of_prompt(prompt, WORLD))
        assert figures["colour_right"] is right and figures["model"] == "sofa_01"


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["a burger", "a red chair"])
def test_name_distances_are_mean_square_differences(prompt):
    things = WORLD.parse(prompt)
    ours = truth(WORLD, things, held_out())
    errors = distances(ours, WORLD, things)
    layouts = WORLD.rivals(things)
    assert errors.shape == (len(layouts), 1, 1)
    planes = torch.cat([ours.body, ours.alpha], -1)[::4].permute(0, 3, 1, 2)
    small = torch.nn.functional.avg_pool2d(planes, 4).permute(0, 2, 3, 1)
    cameras = held_out(32).pick(slice(None, None, 4))
    for place in (0, 100, 400, 600):
        seen = WORLD.buffers([layouts[place]], cameras, 2)[0]
        colors = WORLD.colors(WORLD.things(layouts[place], [things[0].color]))
        body = torch.einsum("bphw,pc->bhwc", seen.shade, colors)
        body = body if seen.fixed is None else body + seen.fixed.movedim(1, -1)
        clear = (1 - seen.coverage.sum(1))[..., None]
        y = (small[..., :3] + 0.5 * (1 - small[..., 3:])).clamp(0, 1)
        square = (y - body - 0.5 * clear).square().sum() + (1 - small[..., 3:] - clear).square().sum()
        assert float(errors[place, 0, 0]) == pytest.approx(float(square) / small.numel(), rel=1e-4, abs=1e-9)


@pytest.mark.slow
def test_every_model_of_some_nouns_is_named_by_its_pictures():
    for prompt in ("a taxi", "a purple guitar", "an apple on a crate"):
        things = WORLD.parse(prompt)
        for layout in WORLD.meant(things):
            named = nearest(truth(WORLD, things, None, layout), WORLD, things)
            assert named is not None and WORLD.agrees(named, things), (layout, named)


def test_without_meshes_the_truth_is_not_at_hand(monkeypatch, tmp_path):
    monkeypatch.delenv("GSDISTILL_OBJECTS")
    monkeypatch.setattr(objects_world, "_SPLATS", tmp_path / "none.npz")
    with pytest.raises(PromptError, match="not on this machine: set GSDISTILL_OBJECTS"):
        truth_of_prompt("a burger", WORLD)


def test_a_picture_of_nothing_has_no_name():
    blank = torch.zeros(32, 128, 128, 4)
    assert nearest(Pictures(blank[..., :3], blank[..., 3:]), WORLD, WORLD.parse("a burger")) is None


def test_a_prompt_without_a_world_is_an_object_where_one_is_meant_and_else_a_solid():
    worlds = {
        "a blue chair": "objects", "a couch": "objects", "a grey cube": "objects", "a red torus": "shapes",
        "a red cube on a blue sphere": "shapes", "a red pyramid on a blue table": "shapes",
    }  # fmt: skip
    assert {prompt: world_that_knows(prompt).name for prompt in worlds} == worlds
    assert truth_of_prompt("a blue chair", world_named("shapes")).world.name == "shapes"
    with pytest.raises(PromptError, match=r"of the world of objects.*'a red zebrra' is not known"):
        world_that_knows("a red zebrra")
