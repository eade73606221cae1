"""DeepFloyd IF: what diffusers' own pipeline predicts, T5's precision, pixels in and out, and a student."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, IFPipeline
from tiny import deepfloyd
from tiny.steps import check_student, guided, load, normal, steps_of
from transformers import T5EncoderModel, T5Tokenizer

from gsdistill.core.errors import ModelNotFound, PromptError
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.families.deepfloyd import DeepFloyd
from gsdistill.prior.families.texts import load_reader
from gsdistill.prior.prompts import PromptSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deepfloyd.build(tmp_path_factory.mktemp("if"))


@pytest.fixture(scope="module")
def prior(folder: Path) -> DeepFloyd:
    return load(DeepFloyd, folder)


def test_the_noise_is_the_pipelines(prior, folder):
    call = {"timesteps": [999, 500, 20, 0], "generator": torch.Generator().manual_seed(3), "output_type": "pt"}
    steps = steps_of(IFPipeline, folder, **call)
    assert [step.timestep for step in steps] == [999, 500, 20, 0]
    for step in steps:
        eps = guided(prior, step.latents, int(step.timestep))
        assert step.guided.shape[1] == 6  # with the variance
        torch.testing.assert_close(eps, step.guided[:, :3], rtol=0, atol=1e-5)
        assert float((guided(prior, step.latents, abs(int(step.timestep) - 1)) - eps).abs().max()) > 1e-4


def test_its_levels_are_the_folders(prior):
    x0, eps, t = normal(2, 3, 16, 16), normal(2, 3, 16, 16, seed=1), torch.tensor([7, 990])
    reference = DDPMScheduler(beta_schedule="squaredcos_cap_v2").add_noise(x0, eps, t)
    torch.testing.assert_close(prior.schedule.add_noise(x0, eps, t), reference)
    assert prior.prediction_type == "epsilon"


def test_latents_are_pixels(prior):
    assert (prior.latent_shape, prior.image_size) == ((3, 16, 16), 16)
    images = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(1))
    latents = prior.encode(images)
    torch.testing.assert_close(latents, 2 * images.permute(0, 3, 1, 2) - 1)
    torch.testing.assert_close(prior.decode(latents), images)
    large = images.repeat_interleave(4, 1).repeat_interleave(4, 2).requires_grad_()
    torch.testing.assert_close(prior.encode(large), latents)  # each pixel is the mean of sixteen
    prior.encode(large).sum().backward()
    torch.testing.assert_close(large.grad, torch.full_like(large, 2 / 16))


def test_text_is_read_in_small_letters_up_to_the_limit(prior, folder):
    texts = prior.encode_text("  A Red TORUS ", "a red torus", PromptSettings("none"))
    assert torch.equal(texts.positive.tokens, texts.negative.tokens)
    assert texts.positive.tokens.shape == (1, 77, 32)
    tokenizer = T5Tokenizer.from_pretrained(folder / "tokenizer")
    fits = " ".join(["x"] * 38)
    assert len(tokenizer(fits).input_ids) == 77
    prior.encode_text(fits, "", PromptSettings("none"))
    with pytest.raises(PromptError, match=r"has 79 tokens, the prior tiny reads 77 at most"):
        prior.encode_text(f"{fits} x", "", PromptSettings("none"))


def test_t5_is_never_in_float16_nor_kept(folder):
    settings = PromptSettings("none")
    full, half = load(DeepFloyd, folder), load(DeepFloyd, folder, ModelSettings(precision="float16"))
    tokens, same = (prior.encode_text("red", "", settings).positive.tokens for prior in (full, half))
    assert torch.equal(tokens, same)
    assert not any(isinstance(value, T5EncoderModel) for value in vars(full).values())
    kinds = T5Tokenizer, T5EncoderModel
    assert load_reader(kinds, full.origin)[1].dtype == torch.float32
    elsewhere = replace(full.origin, device=torch.device("meta"))
    assert load_reader(kinds, elsewhere)[1].dtype == torch.bfloat16
    assert load(DeepFloyd, folder, device="meta").dtype == torch.float16


def test_words_that_need_another_package_say_so(folder, tmp_path, monkeypatch):
    """The published folder holds spiece.model alone."""
    model = shutil.copytree(folder, tmp_path / "model")
    (model / "tokenizer/tokenizer.json").rename(model / "tokenizer/spiece.model")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelNotFound, match=r"tokenizer holds a SentencePiece model; .* `pip install sentencepiece"):
        load(DeepFloyd, model).encode_text("red", "")


def test_a_student_starts_as_the_prior_and_learns(folder):
    check_student(load(DeepFloyd, folder))
