"""Whether a model is to blame for gradients that are not finite: each of its parts, its precision, and none of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import gaussian

from gsdistill.core.structs import Embedding, Gaussians
from gsdistill.prior.analytic import AnalyticPrior
from gsdistill.prior.prompts import EncodedPrompt
from gsdistill.representation.gaussians import GaussianScene, SceneSettings
from gsdistill.scene.init.ball import Ball
from gsdistill.training.cause import model_fault

SIZE = 8


@pytest.fixture
def prior() -> AnalyticPrior:
    dimensions = 3 * SIZE * SIZE
    return AnalyticPrior(gaussian(0.4, 0.3, dimensions), gaussian(0.0, 1.0, dimensions), (3, SIZE, SIZE))


@pytest.fixture
def scene() -> Gaussians:
    return Ball(count=20).create("", torch.Generator().manual_seed(0))


def told(scene: Gaussians, prior: AnalyticPrior, text: EncodedPrompt | None = None) -> str | None:
    splat = GaussianScene(scene, SceneSettings(), 1, torch.device("cpu"))
    return model_fault(splat, prior, text or prior.encode_text("", ""), 2, SIZE)


def test_a_sound_model_is_not_blamed_and_the_search_leaves_no_trace(prior, scene):
    before = torch.random.get_rng_state()
    assert told(scene, prior) is None and prior.evaluations == 0
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_broken_scene_is_not_the_models_fault(prior, scene, monkeypatch):
    monkeypatch.setattr(AnalyticPrior, "network", lambda self, x, *_: torch.full_like(x, torch.nan))
    assert told(replace(scene, sh=torch.full_like(scene.sh, torch.inf)), prior) is None


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("part", ["network", "autoencoder", "text encoder"])
def test_the_part_that_is_broken_is_named(part, precision, prior, scene, monkeypatch):
    prior.products, text = getattr(torch, precision), prior.encode_text("", "")
    if part == "text encoder":
        text = replace(text, negative=Embedding(torch.full_like(text.negative.tokens, torch.nan)))
    else:
        name = {"network": "network", "autoencoder": "encode"}[part]
        monkeypatch.setattr(AnalyticPrior, name, lambda self, x, *_: torch.full((len(x), 3, SIZE, SIZE), torch.inf))
    found = told(scene, prior, text) or ""
    assert found.startswith(f"the {part} of the prior analytic answers finite numbers with NaN or infinity: ")
    assert ("try model.precision float32" in found) is (precision == "float16") and "guidance" not in found


@pytest.mark.parametrize("time", [20, 980])
def test_a_network_that_fails_at_some_times_alone(time, prior, scene, monkeypatch):
    sound = AnalyticPrior.network

    def network(self, x, t, *rest):
        return torch.where((t == time)[:, None, None, None], torch.nan, sound(self, x, t, *rest))

    monkeypatch.setattr(AnalyticPrior, "network", network)
    assert "the network" in (told(scene, prior) or "")
