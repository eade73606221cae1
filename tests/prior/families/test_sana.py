"""Sana: the published scheduler's levels, diffusers' own pipeline, Gemma's instruction and mask, and a student."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, SanaPipeline
from tiny import sana
from tiny.steps import NEGATIVE, PROMPT, check_student, guided, load, normal, steps_of
from transformers import GemmaTokenizer

from gsdistill.core.errors import PromptError
from gsdistill.core.structs import Embedding
from gsdistill.prior.base import Query
from gsdistill.prior.families.sana import Sana
from gsdistill.prior.prompts import PromptSettings
from gsdistill.scene.viewpoints import orbit

NONE = PromptSettings("none")
CALL = {"height": 32, "width": 32, "use_resolution_binning": False, "output_type": "latent"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sana.build(tmp_path_factory.mktemp("sana"))


@pytest.fixture(scope="module")
def prior(folder: Path) -> Sana:
    return load(Sana, folder)


def test_the_levels_are_those_of_dpm_solver(prior):
    """999 steps of the sampler are the lowest 999 of our timesteps."""
    scheduler = sana.published_scheduler()
    scheduler.set_timesteps(999)
    torch.testing.assert_close(prior.schedule.sigmas[:-1].float(), scheduler.sigmas[:-1].flip(0), rtol=0, atol=2e-7)
    off = (prior._times[:-1] - scheduler.timesteps.flip(0)).abs()
    assert float(off.max()) <= 1 and int(off.count_nonzero()) <= 1  # where T s_t is whole, rounding has its say
    assert float(prior._times[-1]) == 999
    assert bool((prior._times == prior._times.floor()).all())


def test_a_thousand_steps_of_dpm_solver_lie_between_our_timesteps(prior):
    scheduler = sana.published_scheduler()
    scheduler.set_timesteps(1000)
    theirs, ours = scheduler.sigmas[:-1].flip(0).double(), prior.schedule.sigmas
    assert bool((theirs <= ours + 1e-7).all())
    assert bool((theirs[1:] >= ours[:-1] - 1e-7).all())


def test_the_velocity_is_the_pipelines(prior, folder):
    call = {"latents": normal(2, 4, 8, 8), "num_images_per_prompt": 2, "num_inference_steps": 9, **CALL}
    steps = steps_of(SanaPipeline, folder, **call)
    for t, step in zip(range(998, -1, -111), steps, strict=True):
        assert step.timestep == float(prior._times[t])
        eps = guided(prior, step.latents, t)
        alpha, _ = prior.schedule.at(torch.tensor([t, t]), eps)
        torch.testing.assert_close(eps, step.latents + alpha * step.guided, rtol=0, atol=1e-5)
    assert float((guided(prior, step.latents, t + 5) - eps).abs().max()) > 1e-4


@pytest.mark.parametrize("kind", ["euler", "with a variance", "scaled time"])
def test_its_variants_too(kind, tmp_path):
    options = {
        "euler": {"scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0)},
        "with a variance": {"scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0), "out_channels": 8},
        "scaled time": {"scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0), "timestep_scale": 0.001},
    }[kind]
    folder = sana.build(tmp_path, **options)
    prior, times = load(Sana, folder), (700, 150)
    levels = [(t + 1) / 1000 for t in times]
    steps = steps_of(SanaPipeline, folder, latents=normal(1, 4, 8, 8), sigmas=levels, **CALL)
    for t, step in zip(times, steps, strict=True):
        eps = guided(prior, step.latents, t)
        alpha, _ = prior.schedule.at(torch.tensor([t]), eps)
        torch.testing.assert_close(eps, step.latents + alpha * step.guided, rtol=0, atol=1e-5)


def test_latents_are_the_autoencoders(prior, folder):
    assert (prior.latent_shape, prior.image_size, prior.prediction_type) == ((4, 8, 8), 32, "flow_prediction")
    images = torch.rand(2, 32, 32, 3, generator=torch.Generator().manual_seed(1))
    vae = AutoencoderDC.from_pretrained(folder, subfolder="vae", low_cpu_mem_usage=False)
    with torch.no_grad():
        code = vae.encode(2 * images.permute(0, 3, 1, 2) - 1).latent
        torch.testing.assert_close(prior.encode(images), code * 0.41407)
        plain = vae.decode(code).sample.permute(0, 2, 3, 1)
    torch.testing.assert_close(prior.decode(code * 0.41407), (0.5 * plain + 0.5).clamp(0, 1), rtol=0, atol=1e-5)


def test_prompts_go_behind_the_instruction_and_negatives_do_not(prior):
    assert prior.prepared(PROMPT, False).endswith("User Prompt: a red torus, studio")
    assert prior.prepared(NEGATIVE, True) == "blurred"
    text = prior.encode_text("", "", PromptSettings("view"))
    assert text.positive.tokens.shape == text.negative.tokens.shape == (1, 300, 24)
    assert text.negative.mask is not None and text.negative.mask.sum() == 1  # <bos> alone
    assert text.positive.mask is not None and text.positive.mask.sum() == 2  # and the instruction's last token
    front = text.views["front"].mask
    assert front is not None and front.sum() == 2 + len(", front view")  # a token each


def test_only_text_reaches_the_transformer(prior):
    text = prior.encode_text("red", "", NONE).positive
    t, x = torch.tensor([400]), normal(1, 4, 8, 8)
    changed = torch.where(text.mask[..., None], text.tokens, 3.0)
    answers = [prior.network(x, t, Embedding(tokens, mask=text.mask), None) for tokens in (text.tokens, changed)]
    torch.testing.assert_close(*answers, rtol=0, atol=0)
    everything = prior.network(x, t, Embedding(changed), None)
    assert float((everything - answers[0]).abs().max()) > 1e-3


def test_a_prompt_that_would_be_cut_is_refused(prior, folder):
    tokenizer = GemmaTokenizer.from_pretrained(folder / "tokenizer")
    fits = "x" * 298
    assert len(tokenizer(fits).input_ids) == 299
    kept = prior.encode_text(fits, fits[:-1] + "y", NONE)
    assert kept.positive.mask is not None and bool(kept.positive.mask.all())
    with pytest.raises(PromptError, match=r"the prompt 'x*' has 300 tokens, the prior tiny reads 299 at most"):
        prior.encode_text(fits + "x", "", NONE)


def test_texts_of_different_lengths_mix(prior):
    """Between two directions a token is text where either's is; both ends answer as their own text does."""
    text = prior.encode_text("red", "", PromptSettings("perp-neg"))
    cameras = orbit(8, 8)
    condition = prior.condition(text, cameras)
    mixed, views = condition.branches["positive"], text.views
    assert mixed.mask is not None
    assert torch.equal(mixed.mask[1], (views["front"].mask | views["side"].mask)[0])
    x, t = normal(8, 4, 8, 8), torch.full((8,), 500)
    noise = prior.noise(x, t, condition)
    assert bool(noise.direction.isfinite().all())
    assert noise.conditional.shape == x.shape
    (told,) = prior.predict_noise([Query(x, t, "perp1")], condition)
    assert float((told - noise.conditional).abs().max()) > 1e-4


def test_off_the_cpu_it_runs_in_bfloat16(folder):
    assert load(Sana, folder, device="meta").dtype == torch.bfloat16


def test_a_student_starts_as_the_prior_and_learns(folder):
    check_student(load(Sana, folder))
