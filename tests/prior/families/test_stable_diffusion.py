"""Stable Diffusion: exactly what diffusers' pipeline predicts; the shapes prior; broken folders in one sentence."""

from __future__ import annotations

import gc
import hashlib
import json
import math
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from tiny import stable_diffusion
from tiny.recorder import guided_noise
from transformers import CLIPTextModel, CLIPTokenizer

from gsdistill.core.errors import BadFile, ModelNotFound, PromptError
from gsdistill.core.structs import Cameras, to_device
from gsdistill.models.catalogue import find_model
from gsdistill.models.eight_bits import convert_folder
from gsdistill.models.load import load_model
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.families import texts
from gsdistill.prior.loading import load_prior
from gsdistill.prior.prompts import PromptSettings
from gsdistill.scene.viewpoints import look_at_origin, orbit

PLAIN = PromptSettings("none")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole Stable Diffusion folder, scaled down, with v-prediction."""
    return stable_diffusion.build(tmp_path_factory.mktemp("tiny-sd"), "v_prediction")


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole folder of either prediction type."""
    return stable_diffusion.build(tmp_path_factory.mktemp(request.param), request.param)


def latents(count: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_facts_come_from_the_folder(folder):
    prior = load_prior(str(folder))
    assert (prior.latent_shape, prior.image_size, prior.prediction_type) == ((4, 8, 8), 16, "v_prediction")
    assert prior.camera_range is None and prior.view_group == 1 and len(prior.schedule) == 1000


@pytest.mark.parametrize("negative", ["", "blue"])
@pytest.mark.parametrize("t", [20, 500, 980])
def test_guided_noise_is_the_pipelines(t, negative, model):
    prior, pipeline, x = load_prior(str(model)), StableDiffusionPipeline.from_pretrained(model), latents(2)
    condition = prior.condition(prior.encode_text("a red torus", negative, PLAIN), orbit(2, 16))
    noise = prior.noise(x, torch.full((2,), t), condition)
    assert float(noise.direction.abs().max()) > 1e-3
    for scale in (7.5, 100.0):
        theirs = guided_noise(pipeline, x, t, scale, {"prompt": "a red torus", "negative_prompt": negative})
        torch.testing.assert_close(noise.guided(scale), theirs, rtol=0, atol=1e-6 * scale)


def test_rows_have_timesteps_of_their_own(model):
    prior, pipeline, x, t = load_prior(str(model)), StableDiffusionPipeline.from_pretrained(model), latents(2), [7, 730]
    noise = prior.noise(x, torch.tensor(t), prior.condition(prior.encode_text("a cat", "", PLAIN), orbit(2, 16)))
    texts = {"prompt": "a cat", "negative_prompt": ""}
    theirs = [guided_noise(pipeline, x[row : row + 1], t[row], 7.5, texts) for row in range(2)]
    torch.testing.assert_close(noise.guided(7.5), torch.cat(theirs), rtol=0, atol=1e-5)


def at(azimuths: list[float]) -> Cameras:
    ones = torch.ones(len(azimuths))
    return look_at_origin(torch.tensor(azimuths), 0 * ones, 3 * ones, 40 * ones, 16)


@pytest.mark.slow
@pytest.mark.parametrize("azimuth", [0.0, 45.0, -22.5, 112.5, 180.0])
def test_perp_neg_is_the_combination_of_the_networks_own_answers(azimuth, model):
    """Four questions to the U-Net, one by one, combined by hand (arXiv 2304.04968); in float64, as h divides there."""
    pipeline = StableDiffusionPipeline.from_pretrained(model)
    pipeline.unet.double()

    def tokens(text: str) -> torch.Tensor:
        return pipeline.encode_prompt(text, "cpu", 1, do_classifier_free_guidance=False)[0].double()

    front, side, back = (tokens(f"a cat, {name} view") for name in ("front", "side", "back"))
    if abs(azimuth) < 90:
        r = 1 - abs(azimuth) / 90
        main, others = r * front + (1 - r) * side, (front, side)
        weights = [-(4 * math.exp(-r / 2) - 2.426), -(4 * math.exp(-(1 - r) / 2) - 2.426)]
    else:
        r = 2 - abs(azimuth) / 90
        main, others = r * side + (1 - r) * back, (side, front)
        weights = [-(math.exp(-r / 2) - 0.606), -(math.exp(-r / 2) + 0.967)]
    x, t, scale = latents(1).double(), 400, 30.0
    level = pipeline.scheduler.alphas_cumprod[t].double()

    def eps(text: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            raw = pipeline.unet(x, t, text).sample
        return raw if model.name.startswith("eps") else level.sqrt() * raw + (1 - level).sqrt() * x

    nothing = eps(tokens("blur"))
    h = total = eps(main) - nothing
    for weight, other in zip(weights, others, strict=True):
        away = eps(other) - nothing
        total = total + weight * (away - (away * h).sum() / (h * h).sum() * h)
    prior = load_prior(str(model))
    prior.dtype = torch.float64
    prior._network.double()
    condition = prior.condition(prior.encode_text("a cat", "blur", PromptSettings("perp-neg")), at([azimuth]))
    noise = prior.noise(x, torch.tensor([t]), condition)
    assert float((total - h).abs().max()) > 1e-3
    torch.testing.assert_close(noise.guided(scale), nothing + scale * total, rtol=0, atol=2e-6)


@pytest.mark.slow
def test_compiled_answers_and_gradients_are_the_same(model, monkeypatch):
    """Traced as for the real backend, which would take minutes; what it calls is left as it is."""
    real, modes = torch.compile, []

    def traced(module: Any, **options: Any) -> Any:
        modes.append((options.get("mode"), options.get("dynamic")))
        return real(module, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", traced)
    found, images, noisy = [], torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(0)), latents(2)
    for settings in (ModelSettings(), ModelSettings(compile=True)):
        prior = load_prior(str(model), settings=settings)
        leaf = images.clone().requires_grad_()
        prior.encode(leaf).square().sum().backward()
        condition = prior.condition(prior.encode_text("a cat", "", PLAIN), orbit(2, 16))
        noise = prior.noise(noisy, torch.tensor([50, 700]), condition)
        found.append((leaf.grad, noise.conditional, noise.direction))
    assert modes == [("reduce-overhead", False), (None, False)]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.compiles
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_compiled_on_a_gpu(folder):
    """Channels last, half precision and CUDA graphs; three times, since the second one records. It compiles once."""
    found, noisy = [], latents(2).cuda()
    for settings in (ModelSettings(), ModelSettings(compile=True)):
        prior = load_prior(str(folder), "cuda", settings)
        condition = prior.condition(prior.encode_text("a cat", "", PLAIN), to_device(orbit(2, 16), "cuda"))
        times = torch.tensor([50, 700], device="cuda")
        found.append([prior.noise(scale * noisy, times, condition).conditional for scale in (1.0, 0.5, 0.25)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0.01, atol=0.01)


@pytest.mark.parametrize(("precision", "bound"), [("float16", 0.004), ("bfloat16", 0.03)])
def test_half_precision_is_near(precision, bound, model):
    """The network's own error, relative; latents, guidance and embeddings stay in float32."""
    x, t, found = latents(2), torch.tensor([50, 700]), []
    for settings in (ModelSettings(), ModelSettings(precision=precision)):
        prior = load_prior(str(model), settings=settings)
        condition = prior.condition(prior.encode_text("a cat", "", PLAIN), orbit(2, 16))
        assert condition.branches["positive"].tokens.dtype == torch.float32
        found.append(prior.noise(x, t, condition).conditional)
    single, half = found
    assert half.dtype == torch.float32 and not torch.equal(half, single)
    assert float((half - single).norm() / single.norm()) < bound


@pytest.mark.slow
def test_the_text_encoder_is_gone_when_texts_are_encoded(folder, monkeypatch):
    alive: list[weakref.ref] = []

    def noted(*args: Any) -> Any:
        encoder = load_model(*args)
        alive.append(weakref.ref(encoder))
        return encoder

    monkeypatch.setattr(texts, "load_model", noted)
    load_prior(str(folder)).encode_text("a text that no other test has", "nor this")
    gc.collect()
    assert len(alive) == 1 and alive[0]() is None


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "CMStochasticIterativeScheduler"])
def test_a_scheduler_of_another_kind_is_refused(name, folder, tmp_path):
    """It would be read as a DDPM with default levels, and everything after that be wrong."""
    model = shutil.copytree(folder, tmp_path / "other")
    path = model / "scheduler/scheduler_config.json"
    path.write_text(json.dumps({"_class_name": name, "num_train_timesteps": 1000}))
    with pytest.raises(BadFile, match=f"scheduler: {name} has no levels of a DDPM"):
        load_prior(str(model))


def test_a_prompt_that_would_be_cut_is_refused(folder):
    with pytest.raises(PromptError, match=r"tokens, the prior .* reads 40 at most"):
        load_prior(str(folder)).encode_text("a very long prompt of many letters, more than there are", "")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        ("no weights", ModelNotFound, r"weights .*unet/\*.safetensors are missing"),
        ("no config", ModelNotFound, "unet/config.json is missing"),
        ("cut weights", BadFile, "unet/.* are corrupted"),
        ("flipped bit", BadFile, "unet/.* is not what SHA256SUMS promises"),
        ("cut config", BadFile, "unet/config.json: not valid JSON"),
        ("broken card", BadFile, "gsdistill.json: not valid JSON"),
        ("unknown card key", BadFile, r"encodr.*Did you mean '.*encoder'"),
    ],
)
def test_broken_folders(damage, error, message, folder, tmp_path):
    model = shutil.copytree(folder, tmp_path / "broken")
    weights, config = model / "unet/diffusion_pytorch_model.safetensors", model / "unet/config.json"
    if damage == "no weights":
        weights.unlink()
    elif damage == "no config":
        config.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif damage == "flipped bit":
        sums = hashlib.sha256(weights.read_bytes()).hexdigest()
        (model / "SHA256SUMS").write_text(f"{sums}  unet/{weights.name}\n")
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif damage == "cut config":
        config.write_text(config.read_text()[:50])
    else:
        card = "{" if damage == "broken card" else json.dumps({"name": "x", "encodr": "vae"})
        (model / "gsdistill.json").write_text(card)
    with pytest.raises(error, match=message):
        load_prior(str(model))


def test_the_shipped_prior_loads_with_plain_library_calls_and_knows_its_world(tmp_path):
    source = tmp_path / "plain"
    convert_folder(Path(find_model("shapes")[0]), source, packed=False)
    unet = UNet2DConditionModel.from_pretrained(source, subfolder="unet", low_cpu_mem_usage=False)
    CLIPTextModel.from_pretrained(source, subfolder="text_encoder")
    assert CLIPTokenizer.from_pretrained(source, subfolder="tokenizer")("a red torus").input_ids
    prior = load_prior("shapes")
    assert unet.config.in_channels == prior.latent_shape[0]
    for prompt, word in (("a red zebra", "zebra"), ("a mauve cube", "mauve")):
        with pytest.raises(PromptError, match=f"unknown word '{word}'.*--prior"):
            prior.encode_text(prompt, "")
    with pytest.raises(PromptError, match="negative prompt"):
        prior.encode_text("a red cube", "zebra")


@pytest.mark.slow
def test_the_shipped_prior_knows_words_and_azimuth():
    """Of wrong colours, solids and azimuths none explains noisy pictures of a chair better than the truth does."""
    from gsdistill.worlds.base import paint
    from gsdistill.worlds.shapes.captions import parse
    from gsdistill.worlds.shapes.raycast import trace
    from gsdistill.worlds.shapes.world import build

    prior = load_prior("shapes")
    cameras = orbit(12, prior.image_size, elevation=20.0)
    thing = build(parse("a blue chair"))
    images, _ = paint(trace(thing.parts, cameras), torch.from_numpy(thing.colors), torch.full((12, 3), 0.5))
    x0, t = prior.encode(images), torch.full((12,), 600)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    x_t = prior.schedule.add_noise(x0, eps, t)

    def error(prompt: str, turned: int = 0) -> float:
        condition = prior.condition(prior.encode_text(prompt, ""), cameras)
        assert condition.cameras is not None
        condition = replace(condition, cameras=condition.cameras.roll(turned, 0))
        return float((prior.noise(x_t, t, condition).conditional - eps).square().mean())

    right = error("a blue chair")
    assert right < 0.8 * min(error("a red chair"), error("a white chair"))
    assert right < 0.9 * min(error("a blue table"), error("a blue cube"))
    assert right < min(error("a blue chair", turned) for turned in range(1, 12))


def test_punctuation_and_case_do_not_reach_the_shapes_prior():
    prior = load_prior("shapes")
    plain = prior.encode_text("a red cube on a blue sphere, studio lighting", "").positive.tokens
    torch.testing.assert_close(
        prior.encode_text("A RED-cube (on a blue sphere)!, Studio lighting.", "").positive.tokens, plain
    )
