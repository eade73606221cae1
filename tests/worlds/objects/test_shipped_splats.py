"""The reference splats that ship: a truth of everyday objects where there are no meshes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tooling
import torch

from gsdistill.evaluation import naming, views
from gsdistill.evaluation.references import truth_of_prompt
from gsdistill.evaluation.truth import evaluate
from gsdistill.scene.viewpoints import orbit
from gsdistill.worlds.base import world_named
from gsdistill.worlds.objects.catalogue import models
from gsdistill.worlds.objects.meshes import VARIABLE, folder, mesh_of
from gsdistill.worlds.objects.splats import FILE, colored, reference
from objects import needs_meshes

WORLD = world_named("objects")
DRAWN = (naming._catalogue, naming._bare, views.buffers)
FIGURES = json.loads(FILE.with_name("figures.json").read_text(encoding="utf-8"))


@pytest.fixture
def without_meshes(monkeypatch):
    """A machine without meshes; pictures that were drawn from them are forgotten, and the others afterwards."""
    monkeypatch.delenv(VARIABLE, raising=False)
    for drawn in DRAWN:
        drawn.cache_clear()
    yield
    for drawn in DRAWN:
        drawn.cache_clear()


def test_every_model_has_one_and_its_figures():
    with np.load(FILE) as file:
        assert [*file["names"]] == [*models()] == [*FIGURES["models"]]
    assert FILE.stat().st_size < 9e6
    for figure, least in {"psnr": 29.0, "iou": 0.95, "psnr_blue": 29.0}.items():
        values = [one[figure] for one in FIGURES["models"].values() if figure in one]
        assert FIGURES["means"][figure] == pytest.approx(np.mean(values), abs=1e-3) and np.mean(values) > least


@needs_meshes
@pytest.mark.parametrize("name", ["headphones_01", "motorcycle_01", "teapot_01"])
def test_the_figures_are_those_of_the_file(name):
    found = tooling.tool("objects/splats").judge(reference(name), mesh_of(models()[name], folder()))
    assert found == pytest.approx(FIGURES["models"][name], abs=0.02)


def test_they_are_the_truth_where_there_are_no_meshes(without_meshes):
    things = WORLD.known("a teddy bear on a blue chair")
    layout = WORLD.meant(things)[0]
    assert WORLD.drawn_from(layout) == "reference splats" and not WORLD.is_measurable(layout)
    buffers = WORLD.trace(layout, orbit(2, 48), 3)
    bear, chair = buffers.coverage.sum((0, 2, 3))
    assert float(bear) > 20 and float(chair) > 20 and not buffers.shade[:, 0].any() and buffers.shade[:, 1].any()
    assert WORLD.reference(things) is None  # it is the truth itself


@pytest.mark.slow
def test_a_splat_is_named_and_measured_by_them(without_meshes):
    teapot = colored([reference("teapot_01")], [True], torch.tensor([WORLD.palette["red"]]))
    truth = truth_of_prompt("a red teapot")
    figures = evaluate(teapot, truth)
    assert figures["name"] == "a red teapot" and figures["name_right"] and figures["colour_right"]
    assert figures["model"] == "teapot_01" and figures["truth"] == "reference splats"
    assert "surface_chamfer" not in figures and figures["iou"] > 0.99
    half = teapot.each(lambda value: value[teapot.means[:, 0] > 0])
    assert evaluate(half, truth)["iou"] < 0.85
    assert not evaluate(teapot, truth_of_prompt("a red guitar"))["name_right"]


@needs_meshes
def test_beside_the_meshes_they_are_nearly_perfect():
    figures = evaluate(WORLD.reference(WORLD.parse("a blue vase")), truth_of_prompt("a blue vase"))
    assert figures["truth"] == "meshes" and figures["name_right"] and figures["iou"] > 0.95 and figures["psnr"] > 27
    assert figures["surface_chamfer"] < 0.05
