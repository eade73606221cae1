"""The curves' points are the runs that the axes name, and the picture shows each of them."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

import pytest
import tooling
import torch
from PIL import Image

from gsdistill.run.config import resolve


@pytest.fixture(scope="module")
def curves():
    return tooling.tool("bench/cost_curves")


def points(curves):
    parts = [part for phases, _ in curves.LINES.values() for part in phases]
    for curve, (_, values) in curves.CURVES.items():
        for value in values:
            yield {"curve": curve, "run": {curve: value}, "phases": {part: {"median_ms": value} for part in parts}}


def test_a_point_is_the_run_that_its_axis_names(curves):
    config = resolve(curves.settings({"gaussians": 3000, "views": 8, "resolution": 128}, "shapes"))
    assert (config.init.count, config.views, config.resolution) == (3000, 8, 128)
    assert not config.densify.enabled
    base = resolve(curves.settings(curves.BASE, "shapes"))
    recipe = resolve({"prompt": "a red torus", "method": "sds", "prior": "shapes"})
    assert base == recipe


def test_all_points_are_drawn(curves, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: figures.append(figure))
    curves.draw(list(points(curves)), tmp_path / "a.png")
    for axes, (_, values) in zip(figures[0].axes, curves.CURVES.values(), strict=True):
        for line, (parts, _) in zip(axes.lines, curves.LINES.values(), strict=True):
            assert list(line.get_xdata()) == list(values)
            assert list(line.get_ydata()) == [len(parts) * value for value in values]


@pytest.mark.slow
def test_it_leaves_both_files(curves, tmp_path, monkeypatch):
    few = {"views": ("views", (1, 2)), "resolution": ("pixels", (32,)), "gaussians": ("Gaussians", (1000,))}
    monkeypatch.setattr(curves, "CURVES", few)
    file, picture = tmp_path / "a.json", tmp_path / "a.png"
    words = ["cost_curves", "--steps", "1", "--threads", str(torch.get_num_threads())]
    monkeypatch.setattr(sys, "argv", [*words, "--json", str(file), "--figure", str(picture)])
    curves.main()
    found = json.loads(file.read_text())
    assert [(point["curve"], point["run"][point["curve"]]) for point in found["points"]] == [
        ("views", 1), ("views", 2), ("resolution", 32), ("gaussians", 1000),
    ]  # fmt: skip
    assert found["environment"]["versions"]["torch"] == version("torch")
    with Image.open(picture) as image:
        assert image.format == "PNG" and min(image.size) > 300
