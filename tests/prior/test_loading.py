"""Another autoencoder by --model.vae: a folder, one file, a short name or a hub id, for every kind of model."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakehub import FakeHub
from safetensors.torch import save_file
from tiny import stable_diffusion
from tiny.answers import same
from tiny.original import build_xl, original, vae_names, weights

from gsdistill.core.errors import BadFile, ConfigError, ModelNotFound
from gsdistill.disk.places import cache_folder
from gsdistill.models import catalogue
from gsdistill.models.hub import go_offline
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.base import Prior
from gsdistill.prior.loading import load_prior
from gsdistill.settings.config import from_dict, to_dict

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with an autoencoder of its own."""
    return stable_diffusion.build(tmp_path_factory.mktemp("loading") / "own")


@pytest.fixture(scope="module")
def other(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model but for its autoencoder."""
    folder = Path(shutil.copytree(model, tmp_path_factory.mktemp("loading") / "other"))
    torch.manual_seed(7)
    stable_diffusion.vae().save_pretrained(folder / "vae")
    return folder


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    return FakeHub(monkeypatch, tmp_path / "hub")


def with_vae(model: Path, vae: Path | str) -> Prior:
    return load_prior(str(model), settings=ModelSettings(vae=str(vae)))


# Files


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["original", "VAE.SAFETENSORS", "pickle", "whole checkpoint", "names of diffusers"])
def test_an_autoencoder_in_one_file_serves(kind, model, other, tmp_path):
    held, file = weights(other, "vae"), tmp_path / (kind if "." in kind else "vae.safetensors")
    alone = {name.removeprefix("first_stage_model."): value for name, value in vae_names(held).items()}
    if kind == "pickle":
        file = tmp_path / "vae.ckpt"
        torch.save({"state_dict": alone}, file)
    else:
        save_file({"whole checkpoint": original(other), "names of diffusers": held}.get(kind, alone), file)
    same(with_vae(model, file), load_prior(str(other)))
    (place,) = cache_folder("converted").iterdir()
    before = place.stat().st_mtime_ns
    with_vae(model, file)
    assert [path.stat().st_mtime_ns for path in cache_folder("converted").iterdir()] == [before]


def test_half_an_autoencoder_is_kept_as_half(model, other, tmp_path):
    save_file({name: value.half() for name, value in weights(other, "vae").items()}, tmp_path / "vae.safetensors")
    assert with_vae(model, tmp_path / "vae.safetensors")._codec._vae.dtype == torch.float32
    (place,) = cache_folder("converted").iterdir()
    assert {value.dtype for value in weights(place, "vae").values()} == {torch.float16}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("cut", r"vae.safetensors is not a whole .safetensors file"),
        ("lora", r"vae.safetensors gives no vae that fits .*/vae/config.json"),
        ("a tensor lacks", r"vae.safetensors (gives no vae that fits|has no weights for 1 tensors of vae)"),
        ("not finite", r"vae.safetensors, vae: 1 tensors of its weights hold NaN or infinity, such as"),
    ],
)
def test_a_file_that_is_no_autoencoder(damage, message, model, other, tmp_path):
    file, held = tmp_path / "vae.safetensors", weights(other, "vae")
    name = next(iter(held))
    kept = {
        "lora": {"lora_unet_x": torch.zeros(1)},
        "a tensor lacks": {key: value for key, value in held.items() if key != name},
        "not finite": {**held, name: held[name] / 0},
    }
    save_file(kept.get(damage, held), file)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(BadFile, match=message) as error:
        with_vae(model, file)
    assert "\n" not in str(error.value) and not list(cache_folder("converted").glob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("xl", [False, True])
def test_a_checkpoint_without_an_autoencoder_takes_the_one_that_is_named(xl, model, tmp_path):
    folder, state = build_xl(tmp_path / "xl") if xl else (model, original(model))
    file, settings = tmp_path / "m.safetensors", ModelSettings(config=str(folder))
    save_file({name: value for name, value in state.items() if not name.startswith("first_stage_model.")}, file)
    with pytest.raises(BadFile, match=r"holds no autoencoder: name one, .* --model.vae /"):
        load_prior(str(file), settings=settings)
    same(load_prior(str(file), settings=replace(settings, vae=str(folder / "vae"))), load_prior(str(folder)))
    save_file(vae_names(weights(folder, "vae")), tmp_path / "vae.safetensors")  # whose config is that of the configs
    named = replace(settings, vae=str(tmp_path / "vae.safetensors"))
    same(load_prior(str(file), settings=named), load_prior(str(folder)))


def test_the_own_autoencoder_of_a_checkpoint_gives_way_too(model, other, tmp_path):
    save_file(original(model), tmp_path / "m.safetensors")
    settings = ModelSettings(config=str(model), vae=str(other))  # a whole model's folder
    same(load_prior(str(tmp_path / "m.safetensors"), settings=settings), load_prior(str(other)))


# The hub


def autoencoder_of(folder: Path, place: Path) -> Path:
    """A repository of an autoencoder alone, with files of other programs beside it."""
    shutil.copytree(folder / "vae", place)
    for name in ("sdxl_vae.safetensors", "sdxl.vae.safetensors", "diffusion_pytorch_model.bin", "README.md"):
        (place / name).write_bytes(b"never read")
    return place


@pytest.mark.slow
def test_an_autoencoder_comes_from_the_hub_once(hub, model, other, tmp_path):
    hub.folders["a/vae"] = autoencoder_of(other, tmp_path / "vae")
    same(with_vae(model, "a/vae"), load_prior(str(other)))
    assert hub.kept("a/vae") == {"config.json", WEIGHTS}
    hub.asked.clear()
    with_vae(model, "a/vae")
    go_offline()
    with_vae(model, "a/vae")
    assert not hub.asked


@pytest.mark.slow
def test_of_a_whole_model_on_the_hub_the_autoencoder_alone_is_taken(hub, model, other):
    hub.folders["a/model"] = hub.folders[catalogue.cards()["sd15"].sources[0]] = other
    for name in ("a/model", "sd15"):
        same(with_vae(model, name), load_prior(str(other)))
    assert hub.kept("a/model") == {"model_index.json", "vae/config.json", f"vae/{WEIGHTS}"}


@pytest.mark.slow
def test_a_model_of_the_hub_with_another_autoencoder_gives_no_more_than_a_config(hub, model, other, tmp_path):
    hub.folders |= {"a/model": model, "b/model": model, "a/vae": autoencoder_of(other, tmp_path / "vae")}
    same(load_prior("a/model", settings=ModelSettings(vae="a/vae")), load_prior(str(other)))
    assert not any(name.startswith("vae") for name in hub.kept("a/model"))
    save_file(vae_names(weights(other, "vae")), tmp_path / "vae.safetensors")
    named = ModelSettings(vae=str(tmp_path / "vae.safetensors"))
    same(load_prior("b/model", settings=named), load_prior(str(other)))
    assert {name for name in hub.kept("b/model") if name.startswith("vae")} == {"vae/config.json"}
    hub.down = True
    load_prior("b/model", settings=named)


@pytest.mark.parametrize("why", ["gone", "down", "offline", "pickles"])
def test_an_autoencoder_that_the_hub_does_not_give_is_told(why, hub, model, other, tmp_path):
    hub.folders["a/pickles"] = autoencoder_of(other, tmp_path / "vae")
    (tmp_path / "vae" / WEIGHTS).unlink()
    hub.down = why == "down"
    if why == "offline":
        go_offline()
    reason = {
        "gone": r"there is no such model on the hub, or it is private \(`hf auth login`\)",
        "down": r"the hub cannot be reached \(Name or service not known\)",
        "offline": r"it is not in the cache .*, and HF_HUB_OFFLINE or --offline forbids to ask the hub",
        "pickles": r"the weights a/pickles/\*.safetensors are missing: there are sdxl.vae.safetensors, sdxl_vae.*",
    }[why]
    name = "a/pickles" if why == "pickles" else "a/gone"
    with pytest.raises(ModelNotFound) as error:
        with_vae(model, name)
    advice = r"; or name a folder, a .safetensors file or another hub id with --model.vae"
    assert re.fullmatch(f"cannot get {name}: {reason}{advice}", str(error.value))


def test_a_name_of_no_autoencoder_is_told_before_the_model_is_asked_for(hub):
    with pytest.raises(ConfigError, match=r"^model.vae = 'sdx' is neither a known prior nor .* Did you mean 'sdxl'"):
        load_prior("a/model", settings=ModelSettings(vae="sdx"))
    assert not hub.asked


def test_the_setting_comes_back_as_it_was_written():
    for text in ("madebyollin/sdxl-vae-fp16-fix", "../vae", "a folder/vae.safetensors", None):
        settings = ModelSettings(vae=text)
        assert from_dict(ModelSettings, to_dict(settings)) == settings


def test_what_is_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own/vae").mkdir(parents=True)
    (tmp_path / "sdxl").mkdir()
    assert [catalogue.is_local(name) for name in ("own/vae", "own", "sdxl", "no/vae", "")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert catalogue.find_model("own/vae", "model.vae") == ("own/vae",)
