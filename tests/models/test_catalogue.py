"""The cards of priors: read strictly, true to their families, and what names lead to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from gsdistill.core.errors import BadFile, ConfigError, ModelNotFound, PromptError
from gsdistill.models import catalogue as module
from gsdistill.models.card import read_model_card
from gsdistill.models.catalogue import PriorCard, cards, choose_prior, find_model, is_hub_id, recipe, world_of
from gsdistill.models.locate import CONFIGS
from gsdistill.models.pipelines import FAMILIES
from gsdistill.prior.loading import leaf_of, load_prior
from gsdistill.settings.config import from_dict
from gsdistill.worlds.shapes.captions import parse

NAMES = list(cards())
CONTENT = yaml.safe_load(Path(module.__file__).with_name("cards.yaml").read_text())


def test_the_large_families_have_short_names():
    wanted = {"shapes", "sd15", "sd21-base", "sd21", "sdxl", "deepfloyd-if", "sd3", "sd35", "sana", "mvdream"}
    assert wanted <= set(NAMES)
    assert {card.pipeline for card in cards().values()} == set(FAMILIES)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_whole(name):
    card = cards()[name]
    assert card.sources and card.summary and card.licence and "\n" not in card.summary
    assert len(set(card.sources)) == len(card.sources)
    assert card.shipped or all(is_hub_id(source) for source in card.sources)
    assert leaf_of(FAMILIES[card.pipeline])
    assert 1 < card.guidance_scale < 20
    assert card.shipped or card.size_gb > 1
    assert card.recipes is None or recipe(name, "sds")
    assert card.base is None or (card.base in cards() and card.checkpoint)
    assert (card.gpu_gb is None) == (card.step_tflop is None)


def test_who_needs_a_large_prior_is_told_the_figures_of_its_card():
    with pytest.raises(PromptError) as caught:
        parse("a corgi")
    card = cards()["sd15"]
    told = f"--prior sd15: about {card.size_gb:g} GB to download, and {card.gpu_gb:g} GB of GPU memory."
    assert str(caught.value).endswith(told)


@pytest.mark.parametrize("family", ["v_prediction", "flow_prediction", "sample", "epsilon"])
def test_cards_agree_with_their_families(family):
    """Flows are transformers and U-Nets are not; one card is of v, and one of x0."""
    names = [name for name, card in cards().items() if card.prediction_type == family]
    expected = {"v_prediction": {"sd21"}, "flow_prediction": {"sd3", "sd35", "sana"}, "sample": {"objects"}}
    assert set(names) == expected.get(family, set(NAMES).difference(*expected.values()))
    networks = {leaf_of(FAMILIES[cards()[name].pipeline]).NETWORK for name in names}
    assert networks == {"transformer" if family == "flow_prediction" else "unet"}


def test_the_shipped_card_says_what_the_model_says():
    card, prior = cards()["shapes"], load_prior("shapes")
    assert (card.resolution, card.prediction_type) == (prior.image_size, prior.prediction_type)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sorces": ["a/b"]}, r"unknown setting 'here.sorces' .*Did you mean 'here.sources'"),
        ({"guidance_scale": "much"}, r"here.guidance_scale = 'much' has the wrong type; expected a number"),
        ({"guidance_scale": 0.5}, r"here.guidance_scale = 0.5 is out of range; it must be at least 1"),
        ({"prediction_type": "noise"}, r"here.prediction_type = 'noise' is not a choice.*Allowed: epsilon, v_pred"),
        ({"variant": "fp8"}, r"here.variant = 'fp8'"),
        ({"sources": "a/b"}, r"here.sources = 'a/b' has the wrong type; expected a list"),
    ],
)
def test_a_typo_in_the_file_is_an_error(change, message):
    assert from_dict(PriorCard, CONTENT["sd15"], "here") == cards()["sd15"]
    with pytest.raises(ConfigError, match=message):
        from_dict(PriorCard, {**CONTENT["sd15"], **change}, "here")


@pytest.mark.parametrize("key", ["sources", "pipeline", "licence", "prediction_type", "resolution", "size_gb"])
def test_a_card_without_a_key_is_an_error(key):
    with pytest.raises(ConfigError, match=f"the setting 'here.{key}' is missing"):
        from_dict(PriorCard, {name: value for name, value in CONTENT["sd15"].items() if name != key}, "here")


def test_what_names_lead_to(tmp_path, monkeypatch):
    assert find_model("sd21-base") == cards()["sd21-base"].sources
    assert find_model("anyone/anything") == ("anyone/anything",)
    assert Path(find_model("shapes")[0]).name == "shapes-prior"
    assert find_model(str(tmp_path)) == (str(tmp_path),)
    (tmp_path / "model.safetensors").touch()
    assert find_model(str(tmp_path / "model.safetensors")) == (str(tmp_path / "model.safetensors"),)
    monkeypatch.setattr(module, "data_path", lambda *parts: tmp_path / "gone")
    with pytest.raises(ModelNotFound, match="gone, which ships with gsdistill, is missing; install gsdistill again"):
        find_model("shapes")


@pytest.mark.parametrize("name", ["shape", "./models/sd", "/models/sd", "~/sd", "a/b/c", "x/model.ckpt", "", "a b/c"])
def test_what_leads_nowhere_is_told(name):
    with pytest.raises(ConfigError) as error:
        find_model(name)
    told = str(error.value)
    assert told.startswith(f"prior = '{name}' is neither a known prior nor a folder or file that is there.")
    assert "sd21-base" in told and "hub id owner/name" in told
    assert ("Did you mean 'shapes'?" in told) is (name == "shape")


def test_a_mistyped_folder_is_no_name_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("sd-mine", "sd-yours"):
        (tmp_path / "models" / name).mkdir(parents=True)
    monkeypatch.setattr(module, "cached_file", lambda name, file: name == "models/kept" or None)
    assert find_model("models/sd-mine") == ("models/sd-mine",)
    assert find_model("models/kept") == ("models/kept",)
    assert find_model("others/sd-mine") == ("others/sd-mine",)
    with pytest.raises(ConfigError) as error:
        find_model("models/sd-mien")
    assert str(error.value) == (
        "there is no folder or file 'models/sd-mien'; in models there is models/sd-mine, models/sd-yours. Did you mean "
        "'models/sd-mine'? The hub is not asked for a name that begins as a folder here"
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"in empty there is nothing\. The hub is not asked"):
        find_model("empty/model")


@pytest.mark.parametrize("name", ["x/model.CKPT", "x/model.gguf", "x/unet.onnx"])
def test_names_of_files_are_no_names_of_the_hub(name):
    assert not is_hub_id(name) and is_hub_id("x/stable-diffusion-2.1")
    with pytest.raises(ConfigError, match="nor a folder or file that is there"):
        find_model(name)


def test_auto_takes_the_first_model_that_is_here(monkeypatch):
    gpu = torch.device("meta")
    monkeypatch.setattr(module, "cached_source", lambda name: None)
    assert choose_prior("auto", gpu)[0] == "shapes" and "doctor" in (choose_prior("auto", gpu)[1] or "")
    monkeypatch.setattr(module, "cached_source", lambda name: "x/y" if name in ("sdxl", "sana") else None)
    assert choose_prior("auto", gpu)[0] == "sdxl"
    assert choose_prior("auto", torch.device("cpu"))[0] == "shapes"
    assert choose_prior("sana", gpu) == ("sana", None)


def test_recipes_follow_the_card_and_the_folder_of_a_known_model():
    assert recipe("shapes", "cds") == recipe(find_model("shapes")[0], "cds") == "shapes-cds"
    assert recipe("sd15", "sds") == "sds-dreamfusion"
    assert recipe("anyone/anything", "sds") is None and recipe("sd15", "no-method") is None


def test_what_a_folder_says_of_itself(tmp_path):
    assert read_model_card(str(tmp_path), "x").name == "x"
    (tmp_path / "gsdistill.json").write_text("[")
    with pytest.raises(BadFile, match=r"gsdistill.json: not valid JSON"):
        read_model_card(str(tmp_path), "x")


def test_the_cards_that_complete_a_checkpoint_are_of_its_kind():
    assert {cards()[name].pipeline for kind, name in CONFIGS.items() if kind == "xl_base"} == {
        "StableDiffusionXLPipeline"
    }
    assert CONFIGS["mvdream"] == cards()["mvdream"].base


def test_the_world_of_a_prior_is_what_its_folder_says(tmp_path):
    (tmp_path / "gsdistill.json").write_text('{"name": "mine", "world": "shapes"}')
    (tmp_path / "plain").mkdir()
    assert world_of("shapes") == world_of(str(tmp_path)) == "shapes"
    assert world_of(str(tmp_path / "plain")) is world_of("sd15") is world_of("owner/name") is None
    with pytest.raises(ConfigError, match="Did you mean 'shapes'"):
        world_of("shape")
