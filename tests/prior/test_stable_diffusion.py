"""Loading diffusers folders: small models of the real classes, saved and read back; broken folders in one sentence."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from tiny import stable_diffusion
from transformers import CLIPTextModel, CLIPTokenizer

from gsdistill.errors import BadFile, ConfigError, ModelNotFound, PromptError
from gsdistill.prior.cards import cards, choose, find, recipe
from gsdistill.prior.loading import load_prior
from gsdistill.prior.prompts import PromptSettings
from gsdistill.scene.cameras import orbit


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole Stable Diffusion folder, scaled down, with v-prediction."""
    return stable_diffusion.build(tmp_path_factory.mktemp("tiny-sd"), "v_prediction")


def test_a_plain_folder_answers_as_its_parts_do(folder):
    prior = load_prior(str(folder))
    assert (prior.latent_shape, prior.image_size, prior.prediction_type) == ((4, 8, 8), 16, "v_prediction")
    cameras = orbit(2, 16)
    images = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(1))
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", low_cpu_mem_usage=False)
    mean = vae.encode(images.permute(0, 3, 1, 2) * 2 - 1).latent_dist.mean
    torch.testing.assert_close(prior.encode(images), mean.detach() * 0.2)
    text = prior.encode_text("red torus", "", PromptSettings("none"))
    t = torch.tensor([10, 900])
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    noise = prior.noise(x, t, prior.condition(text, cameras))
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", low_cpu_mem_usage=False)
    with torch.no_grad():
        v = unet(x, t, text.positive.tokens.expand(2, -1, -1)).sample
    alpha, sigma = prior.schedule.at(t, x)
    torch.testing.assert_close(noise.conditional, alpha * v + sigma * x, rtol=1e-4, atol=1e-5)
    assert float((noise.conditional - noise.unconditional).abs().max()) > 1e-4


def test_encoding_is_differentiable_and_resizes(folder):
    prior = load_prior(str(folder))
    images = torch.rand(1, 48, 48, 3, requires_grad=True)
    prior.encode(images).square().sum().backward()
    assert images.grad is not None
    assert float((images.grad != 0).float().mean()) > 0.99


def test_text_encoder_equals_transformers_and_is_not_kept(folder):
    prior = load_prior(str(folder))
    tokens = prior.encode_text("red torus", "blue", PromptSettings("none")).negative.tokens
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
    ids = tokenizer(["blue"], padding="max_length", max_length=40, return_tensors="pt").input_ids
    torch.testing.assert_close(tokens, encoder(ids).last_hidden_state.detach())
    assert not any(isinstance(value, CLIPTextModel) for value in vars(prior).values())


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
        ("cut config", ModelNotFound, "cannot load .*unet"),
        ("broken card", BadFile, "gsdistill.json is not JSON"),
        ("unknown card key", ConfigError, r"encodr.*Did you mean '.*encoder'"),
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


def test_names():
    assert find("runwayml/anything") == ("runwayml/anything",)
    assert find("sd21-base") == cards()["sd21-base"].sources
    with pytest.raises(ConfigError, match="Did you mean 'shapes'"):
        find("shape")
    assert recipe("shapes", "cds") == "shapes-cds" and recipe("sd15", "cds") == "cds-consistent3d"
    assert choose("auto", torch.device("cpu"))[0] == "shapes"
    assert choose("sd15", torch.device("cpu")) == ("sd15", None)
    assert all(card.sources and card.licence for card in cards().values())


def test_the_shipped_prior_loads_with_plain_library_calls_and_knows_its_world():
    (source,) = find("shapes")
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


def test_the_shipped_prior_knows_words_and_azimuth():
    """Of wrong colours, solids and azimuths none explains noisy pictures of a chair better than the truth does."""
    from gsdistill.shapes.captions import parse
    from gsdistill.shapes.raycast import paint, trace
    from gsdistill.shapes.world import build

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
