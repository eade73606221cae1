"""Parts of a folder: shards, both precisions, old names, and what the libraries would fill with random numbers."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tiny import stable_diffusion
from transformers import BertConfig, BertModel, CLIPTextModel, CLIPTokenizer

from gsdistill.core.errors import BadFile, ConfigError, ModelNotFound
from gsdistill.disk.places import data_path
from gsdistill.models.load import check_finite, load_model, load_part, pick_class
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.families.small.text import SmallText
from gsdistill.prior.families.small.unet import SmallUNet
from gsdistill.prior.loading import load_prior
from gsdistill.prior.prompts import PromptSettings

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion.build(tmp_path_factory.mktemp("parts-sd"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(whole, tmp_path / "model")


def shard(folder: Path) -> None:
    """Both networks of the two libraries in several files."""
    for part, kind in (("unet", UNet2DConditionModel), ("text_encoder", CLIPTextModel)):
        model = kind.from_pretrained(folder / part)
        for path in (folder / part).glob("*.safetensors"):
            path.unlink()
        model.save_pretrained(folder / part, max_shard_size="20KB")
        assert len(list((folder / part).glob("*-of-*.safetensors"))) > 1


def test_shards_answer_as_the_whole_file(folder, whole):
    shard(folder)
    ours, plain = load_prior(str(folder)), load_prior(str(whole))
    for name, value in plain._network.state_dict().items():
        assert torch.equal(ours._network.state_dict()[name], value)
    text, settings = "red torus", PromptSettings("none")
    expected = plain.encode_text(text, "", settings).positive.tokens
    torch.testing.assert_close(ours.encode_text(text, "", settings).positive.tokens, expected)


def test_a_missing_shard_is_named(folder):
    shard(folder)
    lost = sorted((folder / "unet").glob("*-of-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(ModelNotFound, match=f"the weights {re.escape(str(lost))} are missing; install or copy"):
        load_prior(str(folder))


def test_a_cut_shard_is_named(folder):
    shard(folder)
    cut = sorted((folder / "unet").glob("*-of-*.safetensors"))[1]
    cut.write_bytes(cut.read_bytes()[:-10])
    with pytest.raises(BadFile, match=f"the weights {re.escape(str(cut))} are corrupted"):
        load_prior(str(folder))


def test_an_autoencoder_with_the_old_names_of_attention_is_whole(folder):
    """As published with Stable Diffusion 1 and 2, whose autoencoders are older than diffusers' names."""
    vae = folder / "vae/diffusion_pytorch_model.safetensors"
    held = load_file(vae)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {re.sub("|".join(old), lambda found: old[found[0]], name): value for name, value in held.items()}
    assert renamed.keys() != held.keys()
    save_file(renamed, vae, {"format": "pt"})
    model = load_model(AutoencoderKL, folder, "vae", torch.float32, CPU)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in held.items())


def test_weights_that_lack_a_tensor_are_refused(folder):
    for path, name, kind in (
        (folder / "unet/diffusion_pytorch_model.safetensors", "conv_out.bias", UNet2DConditionModel),
        (folder / "text_encoder/model.safetensors", "final_layer_norm.bias", CLIPTextModel),
    ):
        held = load_file(path)
        key = next(key for key in held if key.endswith(name))
        save_file({other: value for other, value in held.items() if other != key}, path, {"format": "pt"})
        with pytest.raises(BadFile, match=rf"no weights for 1 tensors of {kind.__name__}, such as .*{name}: they are"):
            load_model(kind, folder, path.parent.name, torch.float32, CPU)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_are_not_finite_are_refused_by_name(value, part, folder):
    (file,) = (folder / part).glob("*.safetensors")
    held = load_file(file)
    name = sorted(held)[-1]
    held[name].view(-1)[-1] = value
    save_file(held, file, {"format": "pt"})
    with pytest.raises(
        BadFile, match=rf"model/{part}: 1 tensors of its weights hold NaN or infinity, such as .*{name}$"
    ):
        load_prior(str(folder)).encode_text("red", "", PromptSettings("none"))


def test_weights_beyond_half_precision_are_told_as_such(folder):
    (file,) = (folder / "unet").glob("*.safetensors")
    held = load_file(file)
    held["conv_out.bias"][:] = 1e5
    save_file(held, file, {"format": "pt"})
    load_prior(str(folder))
    with pytest.raises(BadFile, match=r"such as conv_out.bias; if they are sound, float16 is too small for them"):
        load_prior(str(folder), settings=ModelSettings("float16"))
    with pytest.raises(BadFile, match=r"such as broken$"):
        check_finite({"broken": torch.tensor([torch.nan]).half()}, folder)
    large = {"sum is infinite": torch.tensor([3e38, 3e38]), "none": torch.zeros(0), "whole": torch.tensor([1])}
    check_finite({**large, "largest": torch.full((3,), 65504.0).half()}, folder)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_weights_of_the_shapes_prior_that_are_not_finite_are_refused(part, tmp_path):
    folder = Path(shutil.copytree(data_path("assets", "shapes-prior"), tmp_path / "shapes"))
    (folder / "SHA256SUMS").unlink()
    (file,) = (folder / part).glob("*.safetensors")
    held = load_file(file)
    name = next(name for name in held if name.endswith("bias"))
    held[name][0] = torch.nan
    save_file(held, file, {"format": "pt"})
    with pytest.raises(BadFile, match=rf"shapes/{part}: 1 tensors of its weights hold NaN or infinity, such as {name}"):
        load_prior(str(folder)).encode_text("a red cube", "")


def test_a_text_encoder_of_another_kind_is_refused(folder):
    config = BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=40,
    )  # fmt: skip
    shutil.rmtree(folder / "text_encoder")
    BertModel(config).save_pretrained(folder / "text_encoder")
    with pytest.raises((BadFile, ModelNotFound), match="text_encoder"):
        load_prior(str(folder)).encode_text("red", "", PromptSettings("none"))


def test_a_network_of_another_class_is_refused_before_it_is_loaded(folder):
    config = folder / "unet/config.json"
    config.write_text(config.read_text().replace("UNet2DConditionModel", "UNet3DConditionModel"))
    with pytest.raises(BadFile, match=r"unet/config.json is of class UNet3DConditionModel, where UNet2DCond"):
        load_prior(str(folder))


def test_an_autoencoder_of_another_class_is_refused_before_anything_is_loaded(folder, monkeypatch):
    config = folder / "vae/config.json"
    config.write_text(config.read_text().replace("AutoencoderKL", "VQModel"))
    monkeypatch.setattr(
        "gsdistill.prior.families.base.load_model", lambda *given: pytest.fail("the network was loaded")
    )
    with pytest.raises(BadFile, match=r"vae/config.json is of class VQModel, where AutoencoderKL or Auto"):
        load_prior(str(folder))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        ("none", ConfigError, r"model.vae = '.*/nowhere' is neither a known prior nor a folder or file that is there"),
        ("no weights", ModelNotFound, r"the weights .*\*.safetensors are missing"),
        ("cut", BadFile, "are corrupted"),
    ],
)
def test_another_autoencoder_is_checked_first(damage, error, message, folder, whole, monkeypatch):
    other = folder / "vae"
    if damage == "none":
        other = folder / "nowhere"
    elif damage == "no weights":
        (other / "diffusion_pytorch_model.safetensors").unlink()
    else:
        (other / "diffusion_pytorch_model.safetensors").write_bytes(b"cut")
    monkeypatch.setattr(
        "gsdistill.prior.families.base.load_model", lambda *given: pytest.fail("the network was loaded")
    )
    with pytest.raises(error, match=message):
        load_prior(str(whole), settings=ModelSettings(vae=str(other)))


def test_with_another_autoencoder_the_folder_needs_none(folder, whole):
    shutil.rmtree(folder / "vae")
    with pytest.raises(ModelNotFound, match=r"lacks a part: vae/config.json is missing"):
        load_prior(str(folder))
    assert load_prior(str(folder), settings=ModelSettings(vae=str(whole / "vae"))).image_size == 16


def test_pickled_weights_alone_are_refused_and_the_way_out_is_told(folder):
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), folder / "unet/diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ModelNotFound) as error:
        load_prior(str(folder))
    assert str(error.value) == (
        f"the weights {folder}/unet/*.safetensors are missing; unet/diffusion_pytorch_model.bin is a pickle, which "
        "could run any code, and is not read: convert the model where you trust it, by pipe.save_pretrained(folder, "
        "safe_serialization=True) of diffusers"
    )


def test_text_encoders_that_the_index_names_must_be_there(folder):
    index = json.loads((folder / "model_index.json").read_text())
    index["text_encoder_2"] = ["transformers", "CLIPTextModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelNotFound, match=r"lacks a part: text_encoder_2/config.json is missing"):
        load_prior(str(folder))
    index["text_encoder_2"] = [None, None]
    (folder / "model_index.json").write_text(json.dumps(index))
    load_prior(str(folder))


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", ": not valid JSON"), ("[]", ": expected a JSON"), ('{"unet": 1}', " is not the index of a diffusers model")],
)
def test_an_index_that_is_none(content, words, folder):
    (folder / "model_index.json").write_text(content)
    with pytest.raises(BadFile, match=f"model_index.json{words}"):
        load_prior(str(folder))


def test_failures_of_the_libraries_are_one_line(folder):
    (folder / "tokenizer/tokenizer_config.json").write_text("{")
    with pytest.raises(ModelNotFound, match=r"^cannot load .*/tokenizer: .+") as error:
        load_part(CLIPTokenizer.from_pretrained, folder, "tokenizer")
    assert "\n" not in str(error.value)


def test_the_class_of_a_part(folder):
    assert pick_class(folder, "vae", ("AutoencoderKL",)) == "AutoencoderKL"
    with pytest.raises(ModelNotFound, match=r"lacks nothing/config.json"):
        pick_class(folder, "nothing", ("AutoencoderKL",))
    (folder / "vae/config.json").write_text("{}")
    with pytest.raises(BadFile, match="is of class None, where AutoencoderKL belongs"):
        pick_class(folder, "vae", ("AutoencoderKL",))


# memory that runs out is no fault of the model: generate's own handler names the settings that help


def short(error: Exception) -> Callable[..., NoReturn]:
    """What raises ``error`` in the place of anything."""

    def raises(*args: object, **options: object) -> NoReturn:
        raise error

    return raises


shortages = pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), torch.OutOfMemoryError("CUDA")],
    ids=lambda error: type(error).__name__,
)


@shortages
def test_no_memory_for_a_part_or_its_texts_is_told_as_such(error, whole, monkeypatch):
    with pytest.raises(type(error)) as caught:
        load_part(short(error), whole, "unet")
    assert caught.value is error
    prior = load_prior(str(whole))
    monkeypatch.setattr(CLIPTextModel, "forward", short(error))
    with pytest.raises(type(error)) as caught:
        prior.encode_text("a lack of memory", "", PromptSettings("none"))
    assert caught.value is error


@shortages
def test_no_memory_for_the_shapes_prior_is_told_as_such(error, monkeypatch):
    folder = data_path("assets", "shapes-prior")
    monkeypatch.setattr(SmallUNet, "_join", short(error))
    with pytest.raises(type(error)) as caught:
        SmallUNet(folder / "unet", {}, CPU, torch.float32)
    assert caught.value is error
    monkeypatch.setattr(SmallText, "_encode", short(error))
    with pytest.raises(type(error)) as caught:
        SmallText(folder, {}, CPU)(["a red cube"])
    assert caught.value is error
    monkeypatch.setattr("tokenizers.Tokenizer", type("Tokenizer", (), {"from_file": staticmethod(short(error))}))
    with pytest.raises(type(error)) as caught:
        SmallText(folder, {}, CPU)
    assert caught.value is error
