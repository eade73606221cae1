"""A model from elsewhere runs no code of its own: neither what is pickled in it nor what its configs point to."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from fakehub import FakeHub
from security.evil import Pickled, pickle_weights, plant
from tiny import deepfloyd, mvdream, sana, sd3, sdxl, stable_diffusion

from gsdistill.core.errors import BadFile, ModelNotFound, UserError
from gsdistill.doctor.model import prior_findings
from gsdistill.models import catalogue
from gsdistill.models.settings import ModelSettings
from gsdistill.point_e.text import TextEncoder
from gsdistill.prior.loading import load_prior
from gsdistill.prior.prompts import PromptSettings

FAMILIES = {module.__name__.rpartition(".")[2]: module for module in (stable_diffusion, sdxl, deepfloyd, sd3, sana)}


@pytest.fixture(scope="session")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole Stable Diffusion, to be copied."""
    return stable_diffusion.build(tmp_path_factory.mktemp("security") / "sd")


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that is there once something has run."""
    return tmp_path / "was-here"


# Code


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_code_beside_a_model_never_runs(family: ModuleType, tmp_path, mark):
    folder = family.build(tmp_path / "model")
    plant(folder, mark)
    load_prior(str(folder)).encode_text("red", "", PromptSettings("none"))
    list(prior_findings(str(folder)))
    assert not mark.exists()


def test_that_code_would_have_run(sd, tmp_path, mark, monkeypatch):
    """What is planted works, where one asks for it."""
    from transformers import AutoModel, dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    folder = Path(shutil.copytree(sd, tmp_path / "model"))
    plant(folder, mark)
    with contextlib.suppress(Exception):  # it is no model
        AutoModel.from_pretrained(folder / "text_encoder", trust_remote_code=True)
    assert mark.exists()


def test_a_class_of_its_own_is_refused(sd, tmp_path, mark):
    folder = Path(shutil.copytree(sd, tmp_path / "model"))
    plant(folder, mark)
    for part in ("unet", "vae"):
        config = folder / part / "config.json"
        before = config.read_text()
        for name in ("Evil", "modeling_evil.Evil"):
            config.write_text(json.dumps({**json.loads(before), "_class_name": name}))
            with pytest.raises(BadFile, match="is of class"):
                load_prior(str(folder))
        config.write_text(before)
    assert not mark.exists()


# Pickles


def test_weights_that_are_pickles_alone_are_not_read(sd, tmp_path, mark):
    folder = Path(shutil.copytree(sd, tmp_path / "model"))
    pickles = pickle_weights(folder, mark)
    assert len(pickles) == 3
    for file in pickles:
        with pytest.raises(ModelNotFound, match=r"is a pickle, which could run any code, and is not read"):
            load_prior(str(folder))
        (whole,) = (sd / file.parent.name).glob("*.safetensors")
        shutil.copy(whole, file.parent)
    load_prior(str(folder))  # with the pickles beside the whole files
    assert not mark.exists()
    torch.load(pickles[0], weights_only=False)
    assert mark.exists()  # it would have


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.pth", "model.safetensors", "model.bin"])
def test_a_model_in_one_file_is_no_pickle_of_more_than_tensors(name, tmp_path, mark):
    torch.save({"model.diffusion_model.x": torch.zeros(1), "callback": Pickled(mark)}, tmp_path / name)
    with pytest.raises(UserError) as error:
        load_prior(str(tmp_path / name))
    assert "\n" not in str(error.value) and not mark.exists()


@pytest.mark.parametrize("name", ["lora.bin", "lora.pt", "lora.safetensors"])
def test_a_lora_is_no_pickle(name, sd, tmp_path, mark):
    torch.save({"unet.lora": Pickled(mark)}, tmp_path / name)
    with pytest.raises(BadFile, match=r"cannot be read as \.safetensors"):
        load_prior(str(sd), settings=ModelSettings(lora=(tmp_path / name,)))
    assert not mark.exists()


def test_another_autoencoder_is_no_pickle(sd, tmp_path, mark):
    other = Path(shutil.copytree(sd / "vae", tmp_path / "vae"))
    pickle_weights(other, mark)
    with pytest.raises(ModelNotFound, match=r"the weights .*/vae/\*\.safetensors are missing"):
        load_prior(str(sd), settings=ModelSettings(vae=str(other)))
    assert not mark.exists()


def test_the_text_encoder_of_point_e_is_no_pickle(sd, tmp_path, mark):
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(sd / part, tmp_path / part)
    pickles = pickle_weights(tmp_path, mark)
    for content in (Pickled(mark), torch.zeros(1)):
        torch.save({"weight": content}, pickles[0])
        with pytest.raises(ModelNotFound, match="cannot load the text encoder"):
            TextEncoder(tmp_path, 16, torch.device("cpu"))
    assert not mark.exists()


# The hub


class Pinned(FakeHub):
    """Keeps which revision each question was for."""

    def _folder(self, source: str, revision: str | None, what: str) -> Path:
        self.revisions = [*getattr(self, "revisions", []), (source, what, revision)]
        return super()._folder(source, revision, what)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pinned:
    return Pinned(monkeypatch, tmp_path / "cache")


def pin(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let cards name the revision v2."""
    all_of_them = catalogue.cards()
    pinned = {name: replace(all_of_them[name], revision="v2") for name in names}
    monkeypatch.setattr(catalogue, "cards", lambda: {**all_of_them, **pinned})
    for module in ("models.inventory", "models.locate", "prior.loading", "doctor.model"):
        monkeypatch.setattr(f"gsdistill.{module}.cards", catalogue.cards)


@pytest.mark.parametrize("name", [name for name, card in catalogue.cards().items() if not card.shipped])
def test_every_question_carries_the_revision_that_a_card_names(name, hub, monkeypatch, tmp_path):
    pin(monkeypatch, name, "sd21-base")
    card = catalogue.cards()[name]
    build = {"StableDiffusionPipeline": stable_diffusion, "StableDiffusionXLPipeline": sdxl, "IFPipeline": deepfloyd}
    build |= {"StableDiffusion3Pipeline": sd3, "SanaPipeline": sana, "MVDreamPipeline": mvdream}
    folder = build[card.pipeline].build(tmp_path / "model")
    if card.checkpoint:
        (folder / card.checkpoint).write_bytes(b"no checkpoint")
        hub.folders[catalogue.cards()["sd21-base"].sources[0]] = stable_diffusion.build(tmp_path / "base")
    hub.folders[card.sources[-1]] = folder
    list(prior_findings(name))
    try:
        load_prior(name)
    except BadFile:
        assert card.checkpoint, "only MVDream's has no real file here"
    assert {what for _, what, _ in hub.revisions} == {"list", "get"}
    assert {revision for _, _, revision in hub.revisions} == {"v2"}
