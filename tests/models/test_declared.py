"""What configs declare: sizes that are taken, and what a family cannot feed, refused before a weight is read."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from tiny import deepfloyd, mvdream, sana, sd3, sdxl, stable_diffusion
from tiny.recorder import guided_noise

from gsdistill.core.errors import BadFile, Notice
from gsdistill.doctor.model import prior_findings
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.families.base import Pretrained
from gsdistill.prior.loading import check_model, load_prior
from gsdistill.prior.prompts import PromptSettings
from gsdistill.scene.viewpoints import orbit

TINY = {"sd": stable_diffusion, "xl": sdxl, "if": deepfloyd, "mvdream": mvdream, "sd3": sd3, "sana": sana}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each family."""
    return {name: module.build(tmp_path_factory.mktemp(name)) for name, module in TINY.items()}


def change(folder: Path, file: str, **values: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def copied(whole: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A function that gives a family's folder, to be changed."""
    return lambda name: Path(shutil.copytree(whole[name], tmp_path / name, dirs_exist_ok=True))


@pytest.mark.parametrize("name", TINY)
def test_a_whole_folder_passes(name, whole):
    check_model(whole[name])


CAMERA = {"features": "fourier", "distance": 3.0, "fov": 40.0, "elevation": [0, 30], "azimuth_frequencies": [1, 2]}
UNET, NETWORK, VAE = "unet/config.json", "transformer/config.json", "vae/config.json"


@pytest.mark.parametrize(
    ("family", "file", "values", "message"),
    [
        ("sd", UNET, {"sample_size": [8, 12]}, r"sample_size = \[8, 12\] is no side of a square"),
        ("sd", UNET, {"sample_size": 0}, "sample_size = 0 is no side"),
        ("sd", UNET, {"sample_size": "8"}, "sample_size = '8' is no side"),
        ("sd", UNET, {"sample_size": True}, "sample_size = True is no side"),
        ("sd3", NETWORK, {"sample_size": None}, "sample_size = None is no side"),
        ("sana", NETWORK, {"sample_size": [8, 8]}, r"sample_size = \[8, 8\] is no side"),
        ("sd", UNET, {"in_channels": 9}, "in_channels = 9, where the latents have 4: it is for inpainting"),
        ("xl", UNET, {"in_channels": 8}, "in_channels = 8, .*: it is for editing pictures"),
        ("sd", UNET, {"in_channels": 5}, "in_channels = 5, .*: it is for pictures with a given depth"),
        ("sd", UNET, {"in_channels": "4"}, "in_channels = '4', .*: the parts are of different models"),
        ("if", UNET, {"in_channels": 6}, "in_channels = 6, where the latents have 3"),
        ("sd3", NETWORK, {"in_channels": 32}, "in_channels = 32, where the latents have 16"),
        ("sana", VAE, {"latent_channels": 32}, "in_channels = 4, where the latents have 32"),
        ("sd", UNET, {"out_channels": 2}, "out_channels = 2, where the latents have 4"),
        ("sd", VAE, {"latent_channels": 16}, "in_channels = 4, where the latents have 16"),
        ("sd", VAE, {"in_channels": 4}, "vae/config.json: in_channels = 4, where pictures have 3"),
        (
            "sd",
            UNET,
            {"addition_embed_type": "text_time"},
            "addition_embed_type = 'text_time', .*of Stable Diffusion XL",
        ),
        ("xl", UNET, {"addition_embed_type": None}, "addition_embed_type = None, and this family .* feeds text_time"),
        ("mvdream", UNET, {"addition_embed_type": "image"}, "addition_embed_type = 'image', and this family"),
        ("sd", UNET, {"encoder_hid_dim": 16, "encoder_hid_dim_type": "ip_image_proj"}, "type = 'ip_image_proj', and"),
        ("sd", UNET, {"num_class_embeds": 10}, "num_class_embeds = 10, and this family of models feeds none"),
        ("sd", UNET, {"class_embed_type": "timestep"}, "class_embed_type = 'timestep', and this family .* feeds none"),
        ("mvdream", UNET, {"class_embed_type": None}, "class_embed_type = None, and this family .* feeds projection"),
        ("sd", UNET, {"time_cond_proj_dim": 256}, "time_cond_proj_dim = 256, .*a latent consistency model"),
        ("xl", UNET, {"time_cond_proj_dim": 256}, "time_cond_proj_dim = 256, .*a latent consistency model"),
        ("sd", UNET, {"encoder_hid_dim": 4096}, "encoder_hid_dim = 4096, where the texts have 16 numbers"),
        ("sd", UNET, {"cross_attention_dim": 768}, "cross_attention_dim = 768, where the texts have 16"),
        ("sd", UNET, {"cross_attention_dim": [16, 32]}, r"cross_attention_dim = \[16, 32\], where the texts have 16"),
        ("xl", "text_encoder_2/config.json", {"hidden_size": 40}, "cross_attention_dim = 40, where the texts have 56"),
        ("xl", "text_encoder_2/config.json", {"projection_dim": 40}, "input_dim = 72, where the texts have 88"),
        ("if", "text_encoder/config.json", {"d_model": 64}, "encoder_hid_dim = 32, where the texts have 64"),
        ("sd3", "text_encoder_3/config.json", {"d_model": 64}, "joint_attention_dim = 48, where the texts have 64"),
        ("sd3", "text_encoder/config.json", {"projection_dim": 20}, "pooled_projection_dim = 32, .* have 36"),
        ("sana", NETWORK, {"caption_channels": 2304}, "caption_channels = 2304, where the texts have 24"),
        ("sd", UNET, {"_class_name": "UNet3DConditionModel"}, "is of class UNet3DConditionModel, where UNet2D"),
        (
            "sd",
            "scheduler/scheduler_config.json",
            {"_class_name": "CMStochasticIterativeScheduler"},
            "has no levels of",
        ),
        (
            "sd3",
            "scheduler/scheduler_config.json",
            {"_class_name": "DDIMScheduler"},
            "of class DDIMScheduler, where Fl",
        ),
    ],
)
def test_what_a_family_cannot_feed_is_refused_by_doctor_and_load(family, file, values, message, copied, monkeypatch):
    folder = copied(family)
    change(folder, file, **values)
    monkeypatch.setattr(Pretrained, "load_network", lambda self: pytest.fail("the network was loaded"))
    with pytest.raises(BadFile, match=message) as caught:
        load_prior(str(folder))
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    last = list(prior_findings(str(folder)))[-1]
    assert (last.name, last.found, last.cure) == ("all in all", None, str(caught.value))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 18},
            "18, where .* a camera have 4",
        ),
        ({}, "class_embed_type = None, and this family of models feeds projection or simple_projection"),
    ],
)
def test_a_card_that_tells_of_a_camera_and_a_network_that_is_told_another_one(values, message, copied):
    folder = copied("sd")
    (folder / "gsdistill.json").write_text(json.dumps({"name": "mine", "camera": CAMERA}))
    change(folder, UNET, **values)
    with pytest.raises(BadFile, match=message):
        check_model(folder)


def test_another_autoencoder_must_have_the_latents_of_the_network(whole):
    check_model(whole["sd"], vae=whole["xl"] / "vae")
    with pytest.raises(BadFile, match="in_channels = 4, where the latents have 16"):
        load_prior(str(whole["sd"]), settings=ModelSettings(vae=str(whole["sd3"] / "vae")))


def test_a_square_in_two_numbers_is_the_square(copied, whole):
    folder = copied("sd")
    change(folder, UNET, sample_size=[8, 8])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        prior, plain = load_prior(str(folder)), load_prior(str(whole["sd"]))
    assert (prior.latent_shape, prior.image_size) == (plain.latent_shape, plain.image_size) == ((4, 8, 8), 16)
    assert not [one for one in told if one.category is Notice]


@pytest.mark.parametrize(("family", "side"), [("sd", 64), ("xl", 128), ("mvdream", 32)])
def test_without_a_size_the_familys_is_taken_and_told(family, side, copied):
    folder = copied(family)
    change(folder, UNET, sample_size=None)
    told = f"unet/config.json names no sample_size: {side} x {side} latents, {2 * side} px, are taken"
    with pytest.warns(Notice, match=f"^{re.escape(f'{folder}/{told}')}$"):
        prior = load_prior(str(folder))
    assert prior.latent_shape == (4, side, side) and prior.image_size == 2 * side
    assert prior.encode(torch.rand(1, 16, 16, 3)).shape == (1, 4, side, side)


def test_a_projection_of_the_tokens_needs_no_more_than_the_tokens(copied):
    folder = copied("sd")
    config: dict[str, Any] = json.loads((folder / UNET).read_text())
    config |= {"encoder_hid_dim": 16, "encoder_hid_dim_type": "text_proj", "cross_attention_dim": 24}
    torch.manual_seed(0)
    unet: Any = UNet2DConditionModel.from_config(config)
    unet.save_pretrained(folder / "unet")
    prior, pipeline = load_prior(str(folder)), StableDiffusionPipeline.from_pretrained(folder)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    text = prior.encode_text("a red torus", "", PromptSettings("none"))
    noise = prior.noise(x, torch.tensor([500]), prior.condition(text, orbit(1, 16)))
    theirs = guided_noise(pipeline, x, 500, 7.5, {"prompt": "a red torus", "negative_prompt": ""})
    torch.testing.assert_close(noise.guided(7.5), theirs, rtol=0, atol=1e-5)
