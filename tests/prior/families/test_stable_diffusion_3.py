"""Stable Diffusion 3: diffusers' own scheduler and pipeline, texts with and without T5, and what methods make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusion3Pipeline,
)
from distillation.common import flat, moment_of
from tiny import sd3
from tiny.steps import check_student, guided, load, normal, steps_of

from gsdistill.core.errors import BadFile, PromptError
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.families.stable_diffusion_3 import StableDiffusion3
from gsdistill.prior.prompts import PromptSettings, encode_with_endings
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.registry import load as load_method
from gsdistill.settings.registry import names

T5 = ("tokenizer_3", "text_encoder_3")
NONE = PromptSettings("none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sd3.build(tmp_path_factory.mktemp("sd3"))


@pytest.fixture(scope="module")
def without_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sd3.build(tmp_path_factory.mktemp("sd3-small"), with_t5=False)


@pytest.fixture(scope="module")
def prior(folder: Path) -> StableDiffusion3:
    return load(StableDiffusion3, folder)


def saved(scheduler: Any, folder: Path) -> Path:
    """A model's folder of which only the scheduler is there."""
    scheduler.save_pretrained(folder / "scheduler")
    return folder


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_levels_are_those_of_flow_matching_euler(shift, tmp_path):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    levels = StableDiffusion3.read_levels(saved(scheduler, tmp_path))
    schedule, told = levels.schedule, levels.times
    sigmas, timesteps = scheduler.sigmas.flip(0), scheduler.timesteps.flip(0)
    torch.testing.assert_close(schedule.sigmas[:-1].float(), sigmas[:-1], rtol=0, atol=2e-7)
    assert float(sigmas[-1]) == 1 and float(schedule.sigmas[-1]) == 1 - 1e-4
    torch.testing.assert_close(told, timesteps, rtol=0, atol=2e-4)
    assert bool((told.diff() > 0).all()) and len(schedule) == 1000
    torch.testing.assert_close(schedule.alphas, 1 - schedule.sigmas, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (EulerDiscreteScheduler(), "is of class EulerDiscreteScheduler, where FlowMatch.* or DPMSolver.* belongs"),
        (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), "use_dynamic_shifting is True, .* needs False"),
        (FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "invert_sigmas is True, .* needs False"),
        (DPMSolverMultistepScheduler(prediction_type="flow_prediction"), "use_flow_sigmas is False, .* needs True"),
        (DPMSolverMultistepScheduler(use_flow_sigmas=True), "prediction_type is epsilon, .* needs flow_prediction"),
        (FlowMatchEulerDiscreteScheduler(shift=0.0), "shift is 0.0, a flow prior needs one above 0"),
    ],
)
def test_other_schedulers_are_refused(scheduler, message, tmp_path):
    with pytest.raises(BadFile, match=message):
        StableDiffusion3.read_levels(saved(scheduler, tmp_path))


@pytest.mark.parametrize("kind", ["t5", "no t5"])
def test_the_velocity_is_the_pipelines(kind, folder, without_t5):
    folder, absent = (folder, ()) if kind == "t5" else (without_t5, T5)
    prior = load(StableDiffusion3, folder)
    times = (980, 600, 300, 20, 0)
    levels = [(t + 1) / 1000 for t in times]  # before the shift, which the scheduler applies
    call = {"latents": normal(2, 16, 8, 8), "num_images_per_prompt": 2, "output_type": "latent", "sigmas": levels}
    for t, step in zip(times, steps_of(StableDiffusion3Pipeline, folder, absent, **call), strict=True):
        assert step.timestep == pytest.approx(float(prior._times[t]), abs=1e-3)
        eps = guided(prior, step.latents, t)
        alpha, _ = prior.schedule.at(torch.tensor([t, t]), eps)
        torch.testing.assert_close(eps, step.latents + alpha * step.guided, rtol=0, atol=1e-5)
        assert float((guided(prior, step.latents, t + 5) - eps).abs().max()) > 1e-4


def test_pure_noise_is_told_as_the_pipeline_tells_it(prior, folder):
    call = {"latents": normal(1, 16, 8, 8), "output_type": "latent", "sigmas": [1.0]}
    (step,) = steps_of(StableDiffusion3Pipeline, folder, **call)
    assert step.timestep == float(prior._times[-1]) == 1000
    eps = guided(prior, step.latents, 999)
    torch.testing.assert_close(eps, step.latents + 1e-4 * step.guided, rtol=0, atol=2e-6)


def test_latents_are_the_autoencoders_shifted_and_scaled(prior, folder):
    assert (prior.latent_shape, prior.image_size, prior.prediction_type) == ((16, 8, 8), 16, "flow_prediction")
    images = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(1))
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", low_cpu_mem_usage=False)
    with torch.no_grad():
        mean = vae.encode(2 * images.permute(0, 3, 1, 2) - 1).latent_dist.mean
        latents = prior.encode(images)
        torch.testing.assert_close(latents, (mean - 0.0609) * 1.5305)
        plain = vae.decode(mean).sample.permute(0, 2, 3, 1)
    torch.testing.assert_close(prior.decode(latents), (0.5 * plain + 0.5).clamp(0, 1), rtol=0, atol=1e-5)


def test_t5_reads_what_clip_cuts_and_without_it_clip_sets_the_limit(prior, without_t5):
    long = "red, " * 20  # 80 tokens for CLIP, which reads 40 here, and half of that for T5
    tokens = prior.encode_text(long, long + "a", NONE)
    positive, negative = tokens.positive.tokens, tokens.negative.tokens
    assert positive.shape == (1, 40 + 256, 3 * sd3.WIDTH) and tokens.positive.pooled.shape == (1, 2 * sd3.WIDTH)
    assert torch.equal(positive[:, :40], negative[:, :40])
    assert float((positive[:, 40:] - negative[:, 40:]).abs().max()) > 1e-3
    with pytest.raises(PromptError, match=r"has \d+ tokens, the prior tiny reads 256 at most"):
        prior.encode_text("red, " * 150, "", NONE)
    small = load(StableDiffusion3, without_t5)
    assert not bool(small.encode_text("red", "", NONE).positive.tokens[:, 40:].any())
    with pytest.raises(PromptError, match=r"has \d+ tokens, the prior tiny reads 40 at most"):
        small.encode_text(long, "", NONE)


def test_pooled_texts_are_mixed_between_directions(prior):
    text = prior.encode_text("red", "", PromptSettings("interpolate"))
    cameras = orbit(8, 8)  # the second one is halfway between front and side
    told = prior.condition(text, cameras).branches["positive"]
    half = (text.views["front"].pooled + text.views["side"].pooled) / 2
    torch.testing.assert_close(told.pooled[1:2], half)


def test_off_the_cpu_it_runs_in_bfloat16_and_the_autoencoder_in_float16(folder):
    """Where the settings name a precision, it is that of both."""
    for precision, network, encoder in (
        ("auto", torch.bfloat16, torch.float16), ("bfloat16", torch.bfloat16, torch.bfloat16),
        ("float32", torch.float32, torch.float32),
    ):  # fmt: skip
        prior = load(StableDiffusion3, folder, ModelSettings(precision=precision), "meta")
        assert (prior.dtype, prior._codec._vae.dtype) == (network, encoder)
    prior = load(StableDiffusion3, folder)
    assert prior.dtype == prior._codec._vae.dtype == torch.float32


def test_a_student_starts_as_the_prior_and_learns(folder):
    check_student(load(StableDiffusion3, folder))


@pytest.mark.parametrize("progress", [0.0, 1.0])
@pytest.mark.parametrize("name", names("gsdistill.distillation"))
def test_every_method_is_finite_at_both_ends_of_a_run(name, progress, prior):
    cameras = orbit(4, 8)
    method = load_method("gsdistill.distillation", name)()
    text = encode_with_endings(prior.encode_text, "red", "", PromptSettings("perp-neg"), method.endings())
    condition = prior.condition(text, cameras)
    latents = 0.5 * normal(4, *prior.latent_shape)
    moment = moment_of(prior, latents, cameras, progress, condition=condition)
    guidance, _ = method.gradient(moment, method.init_state(prior, torch.Generator().manual_seed(0)))
    assert bool(guidance.gradient.isfinite().all()) and float(guidance.gradient.abs().max()) > 0


def velocities_of(prior, moment, method):
    """The noise of each question of a method, in the order of the calls, and the transformer's own answers to it."""
    found, real = [], prior.network

    def network(latents, timesteps, text, cameras):
        found.append((latents, timesteps, real(latents, timesteps, text, cameras)))
        return found[-1][-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prior, "network", network)
        gradient = method.gradient(moment, {})[0].gradient
    asked = []
    for latents, timesteps, answer in found:
        alpha, sigma = prior.schedule.at(timesteps, latents)
        clean = moment.x0.repeat(len(latents) // len(moment.x0), 1, 1, 1)
        asked.append(((latents - alpha * clean) / sigma, timesteps, answer))
    return gradient, asked


@pytest.mark.parametrize("name", ["rfds", "rfds-rev"])
def test_rfds_is_the_error_of_the_transformers_velocity(name, prior):
    """u_cfg - (eps - x0) as the released program has it, from what the transformer answers and nothing else."""
    cameras, latents = orbit(4, 8), 0.5 * normal(4, *prior.latent_shape)
    condition = prior.condition(prior.encode_text("red", "blue", PromptSettings("view")), cameras)
    options = {"random_factor": False} if name == "rfds" else {}
    method = load_method("gsdistill.distillation", name)(guidance_scale=flat(7.5), **options)
    gradient, asked = velocities_of(prior, moment_of(prior, latents, cameras, condition=condition), method)
    *before, (noise, t, answer) = asked
    eps = noise[:4]
    told, untold = answer.chunk(2)
    expected = untold + 7.5 * (told - untold) - (eps - latents)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert len(before) == (name == "rfds-rev")
    for first, times, velocity in before:
        step = prior.schedule.at(times, first)[0]  # 1 - sigma
        assert torch.equal(times, t[:4])
        torch.testing.assert_close(eps, first + step * (velocity + latents - first), rtol=1e-3, atol=1e-3)


def test_rfds_takes_the_places_of_the_released_range_in_the_schedulers_list(prior, folder):
    """0.3 T to 0.98 T of a list that falls."""
    falling = FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler").timesteps
    for name in ("rfds", "rfds-rev"):
        method = load_method("gsdistill.distillation", name)()
        low, high = (prior.schedule.index(end(0.0)) for end in (method.t_min, method.t_max))
        torch.testing.assert_close(prior._times[low : high + 1], falling[300 : 980 + 1].flip(0), rtol=0, atol=2e-4)
