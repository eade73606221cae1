"""Stable Diffusion XL: exactly what diffusers' pipeline encodes and predicts, its empty text, its autoencoder."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from tiny import sdxl
from tiny.recorder import guided_noise

from gsdistill.core.errors import PromptError
from gsdistill.models.load import load_model
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.families import texts
from gsdistill.prior.families.sdxl import StableDiffusionXL
from gsdistill.prior.loading import load_prior
from gsdistill.prior.prompts import PromptSettings
from gsdistill.scene.viewpoints import orbit

PLAIN = PromptSettings("none")
CAMERAS = orbit(2, 16)


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole folder of either prediction type, whose empty text is zeros."""
    return sdxl.build(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole folder whose empty text is a text."""
    return sdxl.build(tmp_path_factory.mktemp("sdxl"), zeros=False)


def latents(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(2))


def test_facts_come_from_the_folder(model):
    prior = load_prior(str(model))
    assert isinstance(prior, StableDiffusionXL)
    assert (prior.latent_shape, prior.image_size) == ((4, 8, 8), 16)
    assert prior.prediction_type == ("epsilon" if model.name.startswith("eps") else "v_prediction")
    assert prior.camera_range is None and prior.view_group == 1


@pytest.mark.slow
@pytest.mark.parametrize("negative", [None, "blue"])
@pytest.mark.parametrize("t", [20, 500, 980])
def test_guided_noise_is_the_pipelines(t, negative, model):
    """A negative prompt that is left out: zeros there and here."""
    prior, pipeline, x = load_prior(str(model)), StableDiffusionXLPipeline.from_pretrained(model), latents()
    condition = prior.condition(prior.encode_text("a red torus", negative or "", PLAIN), CAMERAS)
    noise = prior.noise(x, torch.full((2,), t), condition)
    assert float(noise.direction.abs().max()) > 2e-3
    for scale in (7.5, 100.0):
        theirs = guided_noise(pipeline, x, t, scale, {"prompt": "a red torus", "negative_prompt": negative})
        torch.testing.assert_close(noise.guided(scale), theirs, rtol=0, atol=2e-6 * scale)


def test_an_empty_text_is_a_text_where_the_model_says_so(folder):
    prior, pipeline, x = load_prior(str(folder)), StableDiffusionXLPipeline.from_pretrained(folder), latents()
    text = prior.encode_text("a red torus", "", PLAIN)
    assert float(text.negative.tokens.abs().max()) > 0.1
    noise = prior.noise(x, torch.tensor([300, 300]), prior.condition(text, CAMERAS))
    for negative in (None, ""):
        theirs = guided_noise(pipeline, x, 300, 30.0, {"prompt": "a red torus", "negative_prompt": negative})
        torch.testing.assert_close(noise.guided(30.0), theirs, rtol=0, atol=6e-5)


def test_what_an_empty_text_is_belongs_to_what_is_kept_of_it(folder, tmp_path):
    """The index alone changes, and no text comes from the cache."""
    model = shutil.copytree(folder, tmp_path / "model")
    index = json.loads((model / "model_index.json").read_text())
    found = []
    for zeros in (False, True):
        (model / "model_index.json").write_text(json.dumps(index | {"force_zeros_for_empty_prompt": zeros}))
        found.append(load_prior(str(model)).encode_text("a red torus", "", PLAIN).negative)
    assert float(found[0].tokens.abs().max()) > 0.1
    assert not found[1].tokens.any() and not found[1].pooled.any()


def test_texts_are_the_pipelines(model):
    text = load_prior(str(model)).encode_text("a cat, blue", "red", PLAIN)
    pipeline = StableDiffusionXLPipeline.from_pretrained(model)
    tokens, negative, pooled, negative_pooled = pipeline.encode_prompt("a cat, blue", negative_prompt="red")
    assert tokens.shape == (1, 40, sum(sdxl.WIDTHS)) and pooled.shape == (1, sdxl.WIDTHS[1])
    torch.testing.assert_close(text.positive.tokens, tokens.detach(), rtol=0, atol=2e-6)
    torch.testing.assert_close(text.positive.pooled, pooled.detach(), rtol=0, atol=2e-6)
    torch.testing.assert_close(text.negative.tokens, negative.detach(), rtol=0, atol=2e-6)
    torch.testing.assert_close(text.negative.pooled, negative_pooled.detach(), rtol=0, atol=2e-6)


@pytest.mark.slow
def test_one_encoder_at_a_time_and_none_when_texts_are_encoded(folder, monkeypatch):
    alive: list[weakref.ref] = []

    def noted(*args: Any) -> Any:
        gc.collect()
        assert [ref() for ref in alive] == [None] * len(alive)
        encoder = load_model(*args)
        alive.append(weakref.ref(encoder))
        return encoder

    monkeypatch.setattr(texts, "load_model", noted)
    load_prior(str(folder)).encode_text("a text that no other test has", "nor this")
    gc.collect()
    assert [ref() for ref in alive] == [None, None]


def test_a_prompt_that_would_be_cut_is_refused(folder):
    with pytest.raises(PromptError, match=r"tokens, the prior .* reads 40 at most"):
        load_prior(str(folder)).encode_text("a very long prompt of many letters, more than there are", "")


def test_branches_of_perp_neg_carry_the_pooled_text(folder):
    prior = load_prior(str(folder))
    condition = prior.condition(prior.encode_text("a cat", "blur", PromptSettings("perp-neg")), orbit(4, 16))
    assert condition.guiding == ["positive", "negative", "perp0", "perp1"]
    assert all(branch.pooled.shape == (4, sdxl.WIDTHS[1]) for branch in condition.branches.values())
    noise = prior.noise(latents(4), torch.tensor([30, 200, 600, 900]), condition)
    assert bool(noise.guided(30.0).isfinite().all()) and prior.evaluations == 16


def test_the_sizes_are_told(folder):
    """Another size of the picture is another answer; the order is that of the pipeline."""
    prior, pipeline = load_prior(str(folder)), StableDiffusionXLPipeline.from_pretrained(folder)
    text = prior.encode_text("a cat", "", PLAIN).positive
    told = prior.inputs(latents(1), torch.tensor([5]), text, None)["added_cond_kwargs"]
    theirs = pipeline._get_add_time_ids((16, 16), (0, 0), (16, 16), torch.float32, sdxl.WIDTHS[1])
    assert torch.equal(told["time_ids"], theirs) and torch.equal(told["text_embeds"], text.pooled)
    before = prior.network(latents(1), torch.tensor([5]), text, None)
    prior.image_size = 1024
    assert float((prior.network(latents(1), torch.tensor([5]), text, None) - before).abs().max()) > 1e-3


@pytest.mark.parametrize(("precision", "bound"), [("float16", 0.004), ("bfloat16", 0.03)])
def test_half_precision_is_near(precision, bound, model):
    x, t, found = latents(), torch.tensor([50, 700]), []
    for settings in (ModelSettings(), ModelSettings(precision=precision)):
        prior = load_prior(str(model), settings=settings)
        found.append(prior.noise(x, t, prior.condition(prior.encode_text("a cat", "", PLAIN), CAMERAS)).conditional)
    single, half = found
    assert half.dtype == torch.float32 and not torch.equal(half, single)
    assert float((half - single).norm() / single.norm()) < bound


def test_the_autoencoder_stays_whole_where_float16_is_asked_for(folder):
    """Weights that float16 would have rounded, latents and the images' gradient: all as in float32."""
    images = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(1))
    found = {}
    for precision in ("float32", "float16", "bfloat16"):
        prior = load_prior(str(folder), settings=ModelSettings(precision=precision))
        leaf = images.clone().requires_grad_()
        code = prior.encode(leaf)
        code.square().sum().backward()
        found[precision] = code.detach(), leaf.grad, prior.decode(code.detach())
    for single, half, brain in zip(found["float32"], found["float16"], found["bfloat16"], strict=True):
        assert torch.equal(single, half) and not torch.equal(single, brain)


def test_an_autoencoder_that_float16_suits_is_not_kept_whole(folder, tmp_path):
    model = shutil.copytree(folder, tmp_path / "model")
    path = model / "vae/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"force_upcast": False}))
    images = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(1))
    single, half = (
        load_prior(str(model), settings=ModelSettings(precision=precision)).encode(images)
        for precision in ("float32", "float16")
    )
    assert not torch.equal(single, half)
    torch.testing.assert_close(single, half, rtol=0, atol=2e-3)
