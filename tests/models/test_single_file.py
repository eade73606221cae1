"""Checkpoints in one file: written under the original names, they answer as the folder that they were made of."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from fakehub import FakeHub, forbid_network
from safetensors.torch import load_file, save_file
from tiny import mvdream, stable_diffusion
from tiny.answers import answers, same
from tiny.original import LAYERS, build_xl, original, unet_names, vae_names, weights
from torch import Tensor

from gsdistill.core.errors import BadFile, ConfigError, ModelNotFound, OutputError
from gsdistill.disk.places import cache_folder
from gsdistill.models import catalogue, mvdream_weights
from gsdistill.models.original import look
from gsdistill.models.settings import ModelSettings
from gsdistill.models.single_file import convert
from gsdistill.prior.loading import load_prior


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion.build(tmp_path_factory.mktemp("single-sd"), "v_prediction")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt", "nested.pt"])
def test_a_checkpoint_answers_as_its_folder(name, folder, tmp_path, monkeypatch):
    file, state = tmp_path / name, original(folder)
    if name.endswith(".safetensors"):
        save_file(state, file)
    else:
        torch.save({"state_dict": state, "global_step": 1} if name == "nested.pt" else state, file)
    tried = forbid_network(monkeypatch)
    prior = load_prior(str(file), settings=ModelSettings(config=str(folder)))
    same(prior, load_prior(str(folder)))
    assert prior.name == str(file) and not tried
    place = cache_folder("converted")
    first = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    load_prior(str(file), settings=ModelSettings(config=str(folder)))
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == first  # made once
    assert len(list(place.iterdir())) == 1


def test_half_precision_stays_half_on_the_disk(folder, tmp_path):
    file = tmp_path / "half.safetensors"
    save_file({name: value.half() for name, value in original(folder).items()}, file)
    prior = load_prior(str(file), settings=ModelSettings(config=str(folder)))
    assert next(prior._network.parameters()).dtype == torch.float32
    kept = list(cache_folder("converted").rglob("*.safetensors"))
    assert len(kept) == 3
    assert {value.dtype for path in kept for value in load_file(path).values()} == {torch.float16}


@pytest.mark.slow
def test_another_file_of_the_same_name_is_converted_anew(folder, tmp_path):
    file, settings = tmp_path / "model.safetensors", ModelSettings(config=str(folder))
    state = original(folder)
    save_file(state, file)
    before = answers(load_prior(str(file), settings=settings))["conditional"]
    state["model.diffusion_model.out.2.bias"] = state["model.diffusion_model.out.2.bias"] + 1.0
    save_file(state, file)
    after = answers(load_prior(str(file), settings=settings))["conditional"]
    assert float((after - before).abs().max()) > 0.01


@pytest.mark.slow
def test_a_folder_that_lost_a_part_is_made_again(folder, tmp_path):
    file, settings = tmp_path / "model.safetensors", ModelSettings(config=str(folder))
    save_file(original(folder), file)
    load_prior(str(file), settings=settings)
    (place,) = cache_folder("converted").iterdir()
    (place / "unet/config.json").unlink()
    same(load_prior(str(file), settings=settings), load_prior(str(folder)))


@pytest.mark.slow
def test_an_xl_checkpoint_answers_as_its_folder(tmp_path):
    folder, state = build_xl(tmp_path / "xl")
    save_file(state, tmp_path / "xl.safetensors")
    assert look(tmp_path / "xl.safetensors").kind == "xl_base"
    prior = load_prior(str(tmp_path / "xl.safetensors"), settings=ModelSettings(config=str(folder)))
    same(prior, load_prior(str(folder)))
    with pytest.raises(BadFile, match=r"is of the family StableDiffusion, and .*xl.safetensors of StableDiffusionXL"):
        sd = stable_diffusion.build(tmp_path / "sd")
        load_prior(str(tmp_path / "xl.safetensors"), settings=ModelSettings(config=str(sd)))


# What a file says of itself


def marks(*names: str) -> dict[str, Tensor]:
    """The empty tensors with which checkpoints say what they predict."""
    return {name: torch.zeros(0) for name in names}


def levels(prediction_type: str, zero: bool) -> Tensor:
    """Noise levels of the tiny models' betas, as diffusers has them."""
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type,
        rescale_betas_zero_snr=zero,
    )  # fmt: skip
    return scheduler.alphas_cumprod.double().clamp_min(1e-8).sqrt()


@pytest.mark.slow
def test_a_checkpoint_that_says_v_predicts_v_whatever_its_configs_say(tmp_path):
    folder = stable_diffusion.build(tmp_path / "sd")  # of noise
    file, state, told = tmp_path / "m.safetensors", original(folder), list[str]()
    settings = ModelSettings(config=str(folder))
    save_file(state, file)
    plain = load_prior(str(file), settings=settings, say=told.append)
    assert (plain.prediction_type, told) == ("epsilon", [])
    torch.testing.assert_close(plain.schedule.alphas, levels("epsilon", zero=False))
    save_file({**state, **marks("v_pred")}, file)
    prior = load_prior(str(file), settings=settings, say=told.append)
    assert prior.prediction_type == "v_prediction" and torch.equal(prior.schedule.alphas, plain.schedule.alphas)
    assert told == [f"{file} says itself that it predicts v_prediction, which goes before epsilon of {folder}"]
    save_file({**state, **marks("v_pred", "ztsnr")}, file)
    prior = load_prior(str(file), settings=settings)
    assert prior.prediction_type == "v_prediction" and prior.origin.folder.parent == cache_folder("converted")
    torch.testing.assert_close(prior.schedule.alphas, levels("v_prediction", zero=True))
    assert float(prior.schedule.alphas[-1]) < 1e-3 < float(plain.schedule.alphas[-1])
    scheduler = json.loads((prior.origin.folder / "scheduler/scheduler_config.json").read_text())
    assert scheduler["timestep_spacing"] == "trailing" and scheduler["beta_end"] == 0.012
    torch.save({"state_dict": {**state, **marks("v_pred", "ztsnr")}}, tmp_path / "m.ckpt")
    assert look(tmp_path / "m.ckpt").scheduler == look(file).scheduler


@pytest.mark.slow
def test_an_xl_checkpoint_that_says_v(tmp_path):
    folder, state = build_xl(tmp_path / "xl")
    save_file({**state, **marks("v_pred", "ztsnr")}, tmp_path / "m.safetensors")
    prior = load_prior(str(tmp_path / "m.safetensors"), settings=ModelSettings(config=str(folder)))
    assert prior.prediction_type == "v_prediction"
    torch.testing.assert_close(prior.schedule.alphas, levels("v_prediction", zero=True))


def test_a_conversion_without_the_marks_is_not_taken_again(folder, tmp_path):
    """One that an older version made of the same file knew nothing of them."""
    file, settings = tmp_path / "m.safetensors", ModelSettings(config=str(stable_diffusion.build(tmp_path / "sd")))
    save_file({**original(folder), **marks("v_pred")}, file)
    marked = look(file)
    older = convert(replace(marked, scheduler={}), Path(settings.config or ""))
    newer = load_prior(str(file), settings=settings)
    assert newer.folder != older and newer.prediction_type == "v_prediction"
    assert '"epsilon"' in (older / "scheduler/scheduler_config.json").read_text()


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"modelspec.prediction_type": "v"}, "v_prediction"),
        ({"modelspec.prediction_type": "epsilon"}, "epsilon"),
        ({"modelspec.predict_key": "v"}, "v_prediction"),
        ({"prediction_type": "v_prediction"}, "v_prediction"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, "v_prediction"),
        ({"modelspec.architecture": "stable-diffusion-v1"}, None),
        ({"modelspec.prediction_type": "None", "title": "v"}, None),
    ],
)
def test_metadata_say_what_is_predicted(metadata, expected, folder, tmp_path):
    save_file(original(folder), tmp_path / "m.safetensors", metadata)
    assert look(tmp_path / "m.safetensors").prediction == expected
    save_file({**original(folder), **marks("v_pred")}, tmp_path / "m.safetensors", metadata)
    assert look(tmp_path / "m.safetensors").prediction == "v_prediction"  # the tensor is what other programs go by


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ((), {"modelspec.prediction_type": "flow"}, r"it predicts 'flow' \(modelspec.prediction_type\), where v and"),
        (("v_pred", "edm_vpred.sigma_max"), {}, r"is of continuous noise levels \(EDM: edm_vpred.sigma_max\)"),
    ],
)
def test_a_prediction_that_is_unknown_is_refused(tensors, metadata, message, folder, tmp_path):
    save_file({**original(folder), **marks(*tensors)}, tmp_path / "m.safetensors", metadata or None)
    with pytest.raises(BadFile, match=message):
        load_prior(str(tmp_path / "m.safetensors"), settings=ModelSettings(config=str(folder)))


@pytest.mark.slow
def test_the_first_text_encoder_may_have_its_older_names(folder, tmp_path):
    """As in NovelAI's checkpoints, from before transformers put ``text_model`` into them."""
    new, old, settings = ".transformer.text_model.", ".transformer.", ModelSettings(config=str(folder))
    save_file({name.replace(new, old): value for name, value in original(folder).items()}, tmp_path / "m.safetensors")
    same(load_prior(str(tmp_path / "m.safetensors"), settings=settings), load_prior(str(folder)))


def test_the_suffix_of_a_name_may_be_of_large_letters(folder, tmp_path):
    file, settings = tmp_path / "M.SAFETENSORS", ModelSettings(config=str(folder))
    save_file(original(folder), file)
    same(load_prior(str(file), settings=settings), load_prior(str(folder)))
    assert not catalogue.is_hub_id("models/M.SAFETENSORS")


# Configs from the hub


@pytest.mark.slow
def test_configs_come_from_the_matching_card(folder, tmp_path, monkeypatch):
    hub = FakeHub(monkeypatch, tmp_path / "hub")
    source = catalogue.cards()["sd15"].sources[0]
    save_file(original(folder), tmp_path / "model.safetensors")
    with pytest.raises(ModelNotFound) as error:
        load_prior(str(tmp_path / "model.safetensors"))
    told = f"{tmp_path}/model.safetensors needs configs and a tokenizer: cannot get sd15 (tried {source}"
    assert str(error.value).startswith(told)
    assert str(error.value).endswith("; or name a diffusers folder that has them with --model.config")
    hub.folders[source] = folder
    same(load_prior(str(tmp_path / "model.safetensors")), load_prior(str(folder)))
    assert not any(name.endswith(".safetensors") for name in hub.kept(source))
    hub.down = True
    load_prior(str(tmp_path / "model.safetensors"))


def test_of_stable_diffusion_2_the_user_says_what_it_predicts_if_the_file_does_not(folder, tmp_path, monkeypatch):
    file, state = tmp_path / "v2.safetensors", original(folder)
    state["model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"] = torch.zeros(320, 1024)
    save_file(state, file)
    with pytest.raises(ConfigError, match=r"Stable Diffusion 2 .* --model.config sd21-base \(noise, 512 px\) or"):
        load_prior(str(file))
    FakeHub(monkeypatch, tmp_path / "hub")
    for metadata, card in (({"modelspec.prediction_type": "v"}, "sd21"), ({"prediction_type": "eps"}, "sd21-base")):
        save_file(state, file, metadata)
        with pytest.raises(ModelNotFound, match=f"needs configs and a tokenizer: cannot get {card} "):
            load_prior(str(file))


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ("nowhere", ConfigError, "prior = 'nowhere' is neither a known prior nor a folder"),
        ("file", ConfigError, r"model.config = '.*model.safetensors' is a file; it takes a diffusers folder"),
        ("no tokenizer", ModelNotFound, "lacks a part: tokenizer/tokenizer_config.json is missing"),
    ],
)
def test_a_config_that_serves_not(config, error, message, folder, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(original(folder), file)
    if config == "no tokenizer":
        config = str(shutil.copytree(folder, tmp_path / "cut"))
        shutil.rmtree(tmp_path / "cut/tokenizer")
    with pytest.raises(error, match=message):
        load_prior(str(file), settings=ModelSettings(config=str(file) if config == "file" else config))


# What cannot be read


class Evil:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


def test_a_pickle_runs_no_code(folder, tmp_path):
    mark = tmp_path / "was-here"
    torch.save({**original(folder), "callback": Evil(mark)}, tmp_path / "model.ckpt")
    with pytest.raises(BadFile) as error:
        load_prior(str(tmp_path / "model.ckpt"), settings=ModelSettings(config=str(folder)))
    assert "is a pickle of more than tensors (" in str(error.value) and "which could run any code" in str(error.value)
    assert "\n" not in str(error.value) and not mark.exists()
    torch.load(tmp_path / "model.ckpt", weights_only=False)
    assert mark.exists()  # it would have


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("cut", r"is not a whole .safetensors file"),
        ("cut pickle", r"cannot be read as a checkpoint"),
        ("list", r"holds a list, not the named tensors of a checkpoint"),
        ("lora", r"is a LoRA, which --model.lora takes"),
        ("part", r"is one part of a model in the names of diffusers; name the folder"),
        ("words", r"is no Stable Diffusion checkpoint in the original layout: no name in it begins with model.diff"),
        ("sd3", r"is of Stable Diffusion 3, which is read as a folder of diffusers or by a hub id"),
        ("flux", r"is of FLUX, which is of no family that can be a prior"),
        (
            "wan",
            r"is a checkpoint of the kind wan-t2v-1.3B; only Stable Diffusion 1, 2 and XL can be priors in",
        ),
        ("autoencoder", r"is an autoencoder, which --model.vae takes"),
        (
            "not finite",
            r"model.safetensors, unet: 1 tensors of its weights hold NaN or infinity, such as conv_out.bias",
        ),
        ("inpainting", r"is a checkpoint of the kind inpainting; only Stable Diffusion 1, 2 and XL can be priors"),
        ("no vae", r"holds no autoencoder: name one, such as that of its configs by --model.vae /"),
        ("no text", r"gives no text_encoder that fits .*: The provided checkpoint does not seem to"),
        ("a tensor lacks", r"(gives no unet that fits|has no weights for 1 tensors of unet)"),
        ("another shape", r"gives no unet that fits"),
    ],
)
def test_files_that_are_no_prior(damage, message, folder, tmp_path):
    file, state = tmp_path / "model.safetensors", original(folder)
    save_file(state, file)
    first, vae = "model.diffusion_model.input_blocks.0.0.weight", weights(folder, "vae")
    kept = {
        "lora": {"lora_unet_down.weight": torch.zeros(1)},
        "part": weights(folder, "unet"),
        "words": {"emb_params": torch.zeros(2, 4)},
        "sd3": {"model.diffusion_model.joint_blocks.0.context_block.mlp.fc1.bias": torch.zeros(4)},
        "flux": {"double_blocks.0.img_attn.norm.key_norm.scale": torch.zeros(4)},
        "wan": {"head.modulation": torch.zeros(1), "patch_embedding.weight": torch.zeros(1536, 1)},
        "autoencoder": {name.removeprefix("first_stage_model."): value for name, value in vae_names(vae).items()},
        "not finite": {**state, "model.diffusion_model.out.2.bias": torch.full((4,), torch.nan)},
        "inpainting": {**state, first: torch.zeros(8, 9, 3, 3)},
        "no vae": {name: value for name, value in state.items() if "first_stage" not in name},
        "no text": {name: value for name, value in state.items() if "cond_stage" not in name},
        "a tensor lacks": {name: value for name, value in state.items() if name != "model.diffusion_model.out.2.bias"},
        "another shape": {**state, first: torch.zeros(8, 4, 5, 5)},
    }
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:3000])
    elif damage == "cut pickle":
        file = tmp_path / "model.ckpt"
        torch.save(state, file)
        file.write_bytes(file.read_bytes()[:3000])
    elif damage == "list":
        file = tmp_path / "model.pt"
        torch.save([1, 2], file)
    else:
        save_file(kept[damage], file)
    with pytest.raises(BadFile, match=message) as error:
        load_prior(str(file), settings=ModelSettings(config=str(folder)))
    assert "\n" not in str(error.value)
    assert not list(cache_folder("converted").glob("*"))  # nothing half made stays


def test_a_cache_that_cannot_be_written(folder, tmp_path, monkeypatch):
    save_file(original(folder), tmp_path / "model.safetensors")
    (tmp_path / "blocked").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "blocked"))
    with pytest.raises(OutputError, match=r"cannot keep the converted model in .*/blocked/gsdistill/converted/"):
        load_prior(str(tmp_path / "model.safetensors"), settings=ModelSettings(config=str(folder)))


# MVDream


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A tiny MVDream folder, and its U-Net beside other parts as the release has it."""
    monkeypatch.setattr(mvdream_weights, "UNET_CONFIG", mvdream.UNET)
    folder = mvdream.build(tmp_path / "mvdream")
    strange = {"first_stage_model.encoder.conv_in.weight": torch.zeros(1)}
    torch.save({**unet_names(weights(folder, "unet")), **strange}, tmp_path / "sd-v2.1-base-4view.pt")
    return folder, tmp_path / "sd-v2.1-base-4view.pt"


def base_of(folder: Path, place: Path) -> Path:
    """The parts beside the U-Net, with another U-Net and an index of their own, as the card's base has."""
    base = stable_diffusion.build(place)
    for part in ("vae", "text_encoder", "tokenizer", "scheduler"):
        shutil.rmtree(base / part)
        shutil.copytree(folder / part, base / part)
    return base


@pytest.mark.slow
def test_an_mvdream_checkpoint_joins_its_base(release, tmp_path, monkeypatch):
    folder, file = release
    assert look(file).kind == "mvdream"
    base = base_of(folder, tmp_path / "base")
    tried = forbid_network(monkeypatch)
    prior = load_prior(str(file), settings=ModelSettings(config=str(base)))
    same(prior, load_prior(str(folder)))
    assert prior.view_group == 4 and not tried
    assert len(list(cache_folder("converted").iterdir())) == len(list(cache_folder("assembled").iterdir())) == 1
    (place,) = cache_folder("assembled").iterdir()
    first = place.stat().st_mtime_ns
    same(load_prior(str(place)), prior)
    load_prior(str(file), settings=ModelSettings(config=str(base)))
    assert place.stat().st_mtime_ns == first
    save_file(torch.load(file, weights_only=True), tmp_path / "same.safetensors")
    same(load_prior(str(tmp_path / "same.safetensors"), settings=ModelSettings(config=str(base))), prior)


@pytest.mark.slow
def test_the_card_gets_checkpoint_and_base_from_the_hub(release, tmp_path, monkeypatch):
    folder, file = release
    hub, card = FakeHub(monkeypatch, tmp_path / "hub"), catalogue.cards()["mvdream"]
    assert card.base and card.checkpoint == file.name
    base = catalogue.cards()[card.base].sources[0]
    (tmp_path / "remote").mkdir()
    shutil.copyfile(file, tmp_path / "remote" / file.name)
    with pytest.raises(ModelNotFound, match=r"cannot get mvdream .tried MVDream/MVDream.: there is no such model"):
        load_prior("mvdream")
    hub.folders[card.sources[0]] = tmp_path / "remote"
    with pytest.raises(ModelNotFound, match=r"mvdream needs the other parts of its base: cannot get sd21-base .*tried"):
        load_prior("mvdream")
    hub.folders[base] = base_of(folder, tmp_path / "base")
    assert catalogue.cached_source("mvdream") is None
    prior = load_prior("mvdream")
    same(prior, load_prior(str(folder)))
    assert prior.name == "mvdream" and not any(name.startswith("unet/") for name in hub.kept(base))
    assert catalogue.cached_source("mvdream") == card.sources[0] and catalogue.cached_source("sd21-base") is None
    hub.down = True
    same(load_prior("mvdream"), prior)


def test_a_checkpoint_of_another_architecture(release, tmp_path, monkeypatch):
    folder, file = release
    monkeypatch.setattr(mvdream_weights, "UNET_CONFIG", {**mvdream.UNET, "cross_attention_dim": 32})
    with pytest.raises(BadFile, match=r"sd-v2.1-base-4view.pt: the checkpoint is not that of MVDream's U-Net"):
        load_prior(str(file), settings=ModelSettings(config=str(folder)))


def test_the_original_names_are_those_of_the_release():
    """Of Stable Diffusion 1.5's U-Net, in which diffusers knows the names by heart."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    torch.manual_seed(0)
    network = UNet2DConditionModel(**{**mvdream.UNET, "class_embed_type": None})
    held = network.state_dict()
    converted = convert_ldm_unet_checkpoint(unet_names(held), {"layers_per_block": LAYERS})
    assert converted.keys() == held.keys() and all(torch.equal(converted[name], held[name]) for name in held)
