"""The point model's training: a function of its settings, stopped or not; its clouds lie on the surfaces they name."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gsdistill.learning.stream import Key
from gsdistill.point_e.model import load_point_e
from gsdistill.worlds.shapes.captions import COLORS, parse
from gsdistill.worlds.shapes.solids import distances
from gsdistill.worlds.shapes.surface import nearest_parts
from gsdistill.worlds.shapes.world import build

TOOLS = str(Path(__file__).parents[2] / "tools" / "train")


@pytest.fixture(scope="module")
def tools():
    """The tool's module, its data kept for all trainings of this file."""
    sys.path.insert(0, TOOLS)
    tool = importlib.import_module("shapes_points")
    kept = tool.Clouds(0, 300)
    patch = pytest.MonkeyPatch()
    patch.setattr(tool, "Clouds", lambda seed, count: kept)
    yield tool, kept, importlib.import_module("shapes_data").HELD_OUT
    patch.undo()
    sys.path.remove(TOOLS)


def settings(tool, part: str, work: Path):
    return tool.Settings(
        part=part, work=work, output=work / "out", steps=4, batch=512, naming_steps=2, surface=300, device="cpu"
    )


@pytest.mark.slow
def test_a_stopped_training_ends_as_an_unstopped_one_and_its_model_loads(tools, tmp_path):
    tool, _, _ = tools
    for part in ("base", "upsampler"):
        tool.train(settings(tool, part, tmp_path / "whole"))
        tool.train(replace(settings(tool, part, tmp_path / "cut"), stop_after=2))
        assert not (tmp_path / "cut" / "out" / f"{part}.safetensors").exists()
        tool.train(settings(tool, part, tmp_path / "cut"))
        name = f"out/{part}.safetensors"
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    out = tmp_path / "whole" / "out"
    cloud = load_point_e(str(out)).sample("a red cube", torch.Generator().manual_seed(0), steps=1)
    assert cloud.points.shape == (1024, 3) and bool(cloud.points.isfinite().all())
    record = json.loads((out / "training.json").read_text())
    assert [record[part]["trained_steps"] for part in ("base", "upsampler")] == [4, 4]


@pytest.mark.slow
def test_a_run_by_the_clock_ends_by_the_clock(tools, tmp_path):
    tool, _, _ = tools
    tool.train(replace(settings(tool, "base", tmp_path), minutes=1e-3))
    assert torch.load(tmp_path / "base.pt", weights_only=True)["counters"]["seconds"] >= 0.06


def test_a_cloud_shows_what_its_caption_says(tools):
    _, clouds, held_out = tools
    captions, x = clouds.batch(60, 40, Key(1, 2, 3))
    again, same = clouds.batch(60, 40, Key(1, 2, 3))
    assert captions == again and bool((x == same).all())
    assert x.shape == (60, 6, 40) and len(set(captions)) > 40
    for text, cloud in zip(captions, x.double().numpy(), strict=True):
        things = parse(text)
        assert not any((thing.color, thing.shape) in held_out for thing in things)
        world, points = build(things), np.ascontiguousarray(cloud[:3].T)
        assert np.abs(distances(world.parts, points)).max() < 1e-5
        named = np.array([COLORS[thing.color] for thing in things])[nearest_parts(world.parts, points)]
        assert np.isclose(cloud[3:].T, 2.0 * named - 1.0, atol=1e-6).all(axis=1).mean() > 0.98  # but at a stack's seam


def test_values_are_the_points_of_point_e(tools):
    tool, clouds, _ = tools
    _, x = clouds.batch(3, 5, Key(0, 0, 0))
    got = tool.values(x)
    torch.testing.assert_close(got, torch.cat([x[:, :3] / 2.0, (x[:, 3:] + 1.0) * 127.5], 1))


@pytest.mark.slow
def test_the_text_encoder_learns_to_name(tools, monkeypatch, tmp_path):
    """Untaught, it guesses: about the logarithm of the choices. Taught, it does better on captions it has not read."""
    tool, clouds, _ = tools
    monkeypatch.setattr(sys.modules["shapes_points_model"], "NAMING_BATCH", 64)
    tokenizer = tool.make_tokenizer()
    guess, taught = (
        tool.teach_naming(tool.make(s, tokenizer), tokenizer, clouds, s, lambda: False).history[-1][1]
        for s in (replace(settings(tool, "base", tmp_path / str(n)), lr=3e-3, naming_steps=n) for n in (1, 60))
    )
    assert 2.0 < guess < 3.2 and taught < 0.75 * guess


def test_a_lesson_that_was_stopped_goes_on_to_the_same_end(tools, monkeypatch, tmp_path):
    tool, clouds, _ = tools
    monkeypatch.setattr(sys.modules["shapes_points_model"], "NAMING_BATCH", 8)
    tokenizer, weights = tool.make_tokenizer(), []
    for folder, asked, done in (("whole", False, 2), ("cut", True, 1), ("cut", False, 2)):
        s = settings(tool, "base", tmp_path / folder)
        base = tool.make(s, tokenizer)
        assert tool.teach_naming(base, tokenizer, clouds, s, lambda asked=asked: asked).done == done
        weights.append(torch.nn.utils.parameters_to_vector(base.text_encoder.parameters()))
    assert torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[1])


def test_the_expected_noise_is_the_posterior_mean_of_the_drawn_one(tools):
    """By the definition, point by point: weights exp(-|y - x0|^2 / 2 sigma^2) over the object's points."""
    tool, clouds, _ = tools
    _, x = clouds.batch(2, 30, Key(0, 0, 0))
    sigma = torch.tensor([0.05, 0.7])
    drawn = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    y = x[:, :, :4] + sigma[:, None, None] * drawn
    got = tool.expected_noise(y, sigma, x)
    for b in range(2):
        for i in range(4):
            noises = ((y[b, :, i : i + 1] - x[b]) / sigma[b]).double()
            weights = torch.exp(-0.5 * (noises**2).sum(0))
            expected = (noises * weights).sum(1) / weights.sum()
            torch.testing.assert_close(got[b, :, i].double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tool.expected_noise(y, torch.full((2,), 6e-3), x)[0], (y[0] - x[0, :, :4]) / 6e-3)
