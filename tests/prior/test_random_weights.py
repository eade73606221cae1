"""Published architectures without their weights: sizes as published, the real classes, and numbers that stay finite."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tiny import deepfloyd, mvdream, sdxl, stable_diffusion

from gsdistill.core.errors import ConfigError
from gsdistill.models.catalogue import cards
from gsdistill.models.mvdream_weights import UNET_CONFIG
from gsdistill.models.pipelines import FAMILIES
from gsdistill.models.settings import ModelSettings
from gsdistill.prior import random_weights
from gsdistill.prior.base import Query
from gsdistill.prior.loading import leaf_of
from gsdistill.prior.prompts import PromptSettings
from gsdistill.prior.random_weights import architecture, architectures, random_prior, random_prior_of
from gsdistill.scene.viewpoints import orbit

META, CPU = torch.device("meta"), torch.device("cpu")
PUBLISHED = {
    "sd15": 859_520_964,
    "sd21-base": 865_910_724,
    "mvdream": 865_910_724 + 16 * 1280 + 1280 * 1280 + 2 * 1280,  # and the camera's two layers
    "sdxl": 2_567_463_684,
}
VAE = 83_653_863  # of Stable Diffusion and XL alike
TINY = {"sd15": stable_diffusion, "sdxl": sdxl, "deepfloyd-if": deepfloyd, "mvdream": mvdream}
PLAIN = PromptSettings("none")


def parameters(module):
    return sum(value.numel() for value in module.parameters())


def configs_alone(folder):
    """The folder without weights, tokenizers and text encoders."""
    for path in [*folder.glob("tok*"), *folder.glob("text*"), *folder.rglob("*.safetensors")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)  # some went with their folder
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Configs of small models, one folder for each family."""
    path = tmp_path_factory.mktemp("tiny")
    return {name: configs_alone(module.build(path / name)) for name, module in TINY.items()}


def tiny(folders, name, dtype="float32"):
    return random_prior_of(folders[name], name, CPU, ModelSettings(precision=dtype))


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_has_as_many_parameters_as_the_published_model(name):
    prior = random_prior(name, META)
    assert parameters(prior._network) == PUBLISHED[name]
    assert parameters(prior._codec._vae) == VAE


def test_deepfloyd_has_the_billions_of_its_name():
    prior = random_prior("if", META)
    assert round(parameters(prior._network) / 1e9, 1) == 4.3
    assert prior._network.config.out_channels == 6


@pytest.mark.parametrize("name", architectures())
def test_it_is_what_its_card_says(name):
    card, prior = cards()[name], random_prior(name, META)
    assert type(prior) is leaf_of(FAMILIES[card.pipeline])
    assert (prior.name, prior.image_size, prior.prediction_type) == (name, card.resolution, card.prediction_type)
    assert not any(value.requires_grad for value in prior._network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures())
def test_a_whole_answer_has_the_shape_of_the_latents(name):
    prior = random_prior(name, META)
    cameras = orbit(4, 8)
    condition = prior.condition(prior.encode_text("a", "b", PLAIN), cameras)
    features = None if condition.cameras is None else condition.cameras.to(META)
    x = torch.zeros(4, *prior.latent_shape, device=META)
    t = torch.zeros(4, dtype=torch.long, device=META)
    assert prior.network(x, t, condition.branches["positive"], features).shape == x.shape
    images = torch.zeros(4, prior.image_size // 2, prior.image_size // 2, 3, device=META)
    assert prior.encode(images).shape == x.shape


def test_mvdreams_network_is_the_one_that_its_checkpoint_is_turned_into():
    from diffusers import UNet2DConditionModel

    config = json.loads((random_weights.FOLDER / "mvdream" / "unet" / "config.json").read_text())
    with META:
        ours = UNet2DConditionModel.from_config(config)
        theirs = UNet2DConditionModel(**UNET_CONFIG)
    assert {name: value.shape for name, value in ours.state_dict().items()} == {
        name: value.shape for name, value in theirs.state_dict().items()
    }
    plain = [{k: v for k, v in dict(net.config).items() if not k.startswith("_")} for net in (ours, theirs)]
    assert json.dumps(plain[0], sort_keys=True) == json.dumps(plain[1], sort_keys=True)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_answers_are_finite_and_depend_on_text_time_and_latents(name, dtype, folders):
    prior = tiny(folders, name, dtype)
    assert next(prior._network.parameters()).dtype == getattr(torch, dtype)
    condition = prior.condition(prior.encode_text("a", "b", PLAIN), orbit(4, 8))
    generator = torch.Generator().manual_seed(0)
    x, other = (torch.randn(4, *prior.latent_shape, generator=generator) for _ in range(2))
    t = torch.full((4,), 500)
    asked = [
        Query(x, t, "positive"),
        Query(x, t, "negative"),
        Query(x, t // 2, "positive"),
        Query(other, t, "positive"),
    ]
    first, *rest = prior.predict_noise(asked, condition)
    assert first.isfinite().all()
    assert float(first.std()) > 1e-3
    for answer in rest:
        assert float((answer - first).abs().max()) > 1e-4
    images = torch.rand(1, 16, 16, 3, generator=generator, requires_grad=True)
    prior.encode(images).square().sum().backward()
    assert images.grad.isfinite().all() and float(images.grad.abs().max()) > 0


def test_it_comes_out_the_same_every_time_and_leaves_the_global_state_alone(folders):
    first = tiny(folders, "sd15")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        second = tiny(folders, "sd15", "float16")
        third = tiny(folders, "sd15")
        assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(7).get_state())
    torch.testing.assert_close(first._network.state_dict(), third._network.state_dict(), rtol=0, atol=0)
    assert next(second._network.parameters()).dtype == torch.float16
    assert torch.get_default_dtype() == torch.float32


def test_equal_texts_have_equal_embeddings_and_others_their_own(folders):
    prior = tiny(folders, "sdxl")
    one, same, other = (prior.encode_text(text, "", PLAIN).positive for text in ("a red cube", "a red cube", "a chair"))
    torch.testing.assert_close(one.tokens, same.tokens, rtol=0, atol=0)
    torch.testing.assert_close(one.pooled, same.pooled, rtol=0, atol=0)
    assert one.tokens.shape == (1, 77, 40) and one.pooled.shape == (1, 24)
    assert float((one.tokens - other.tokens).abs().mean()) > 0.5
    directions = prior.encode_text("a chair", "", PromptSettings("view")).views
    assert len({float(embedding.tokens.sum()) for embedding in directions.values()}) == 4


def test_a_student_of_it_learns(folders):
    prior = tiny(folders, "sd15")
    student = prior.student(2)
    weights = student.initial(torch.Generator().manual_seed(0)).requires_grad_()
    condition = prior.condition(prior.encode_text("a", "", PLAIN), orbit(1, 8))
    query = Query(torch.ones(1, *prior.latent_shape), torch.tensor([300]), "positive")
    student.predict_noise(weights, query, condition).square().sum().backward()
    assert max(float(v.abs().max()) for k, v in student.named(weights.grad).items() if k.endswith(".B")) > 0


def test_names():
    assert architecture("if") == "deepfloyd-if"
    with pytest.raises(ConfigError) as caught:
        random_prior("sdlx", CPU)
    assert str(caught.value) == (
        "random_weights = 'sdlx' is no architecture. Did you mean 'sdxl'? Available: deepfloyd-if, mvdream, sd15, "
        "sd21-base, sdxl"
    )
