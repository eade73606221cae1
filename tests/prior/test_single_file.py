"""Checkpoints in one file: written under the original names, they answer as the folder that they were made of."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from fakehub import FakeHub, forbid_network
from safetensors.torch import load_file, save_file
from tiny import mvdream, sdxl, stable_diffusion
from torch import Tensor
from transformers import CLIPTextModelWithProjection

from gsdistill.errors import BadFile, ConfigError, ModelNotFound, OutputError
from gsdistill.files import cache_folder
from gsdistill.prior import cards, mvdream_weights
from gsdistill.prior.loading import load_prior
from gsdistill.prior.pretrained import ModelSettings
from gsdistill.prior.prompts import PromptSettings
from gsdistill.prior.single_file import kind_of
from gsdistill.scene.cameras import orbit

LAYERS = 1  # resnets of each level of the tiny U-Nets
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip


# The original names


def unet_name(name: str, attended: set[str]) -> str:
    """Of a parameter of diffusers' U-Net; ``attended`` are the blocks with attention."""
    module, _, kind = name.rpartition(".")
    fixed = {
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
        "class_embedding.linear_1": "camera_embed.0", "class_embedding.linear_2": "camera_embed.2",
    }  # fmt: skip
    if module in fixed:
        return f"{fixed[module]}.{kind}"
    found = re.fullmatch(r"(down_blocks\.\d+|mid_block|up_blocks\.\d+)\.(\w+)\.(\d+)\.(.*)", name)
    assert found, name
    block, part, place, rest = found[1], found[2], int(found[3]), found[4]
    level = int(block.rpartition(".")[2]) if block != "mid_block" else 0
    if part == "resnets":
        inside, _, kind = rest.rpartition(".")
        rest = f"{RESNET[inside]}.{kind}"
    if block == "mid_block":
        return f"middle_block.{1 if part == 'attentions' else 2 * place}.{rest}"
    if part == "downsamplers":
        return f"input_blocks.{(level + 1) * (LAYERS + 1)}.0.op.{kind}"
    if part == "upsamplers":
        return f"output_blocks.{level * (LAYERS + 1) + LAYERS}.{2 if block in attended else 1}.conv.{kind}"
    column = int(part == "attentions")
    if block.startswith("down"):
        return f"input_blocks.{1 + level * (LAYERS + 1) + place}.{column}.{rest}"
    return f"output_blocks.{level * (LAYERS + 1) + place}.{column}.{rest}"


def unet_names(held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    attended = {name.partition(".attentions")[0] for name in held if ".attentions." in name}
    return {f"model.diffusion_model.{unet_name(name, attended)}": value for name, value in held.items()}


def vae_names(held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    levels = 1 + max(int(found[1]) for name in held if (found := re.search(r"up_blocks\.(\d+)", name)))
    rules = (
        (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
        (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
        (r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda found: f"up.{levels - 1 - int(found[1])}.block.{found[2]}"),
        (r"up_blocks\.(\d+)\.upsamplers\.0", lambda found: f"up.{levels - 1 - int(found[1])}.upsample"),
        (r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}"),
        (r"mid_block\.attentions\.0", "mid.attn_1"), (r"attn_1\.group_norm", "attn_1.norm"),
        (r"attn_1\.to_([qkv])", r"attn_1.\1"), (r"attn_1\.to_out\.0", "attn_1.proj_out"),
        ("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out"),
    )  # fmt: skip
    named = {}
    for name, value in held.items():
        convolution = re.search(r"attn.*(to_[qkv]|to_out\.0)\.weight", name)  # linear in diffusers, 1 x 1 there
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        named[f"first_stage_model.{name}"] = value[:, :, None, None] if convolution else value
    return named


def open_clip_names(held: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """CLIP with a projection, in OpenCLIP's names, with query, key and value in one matrix."""
    rules = (
        (r"text_model\.encoder\.layers\.", "transformer.resblocks."), (r"layer_norm(\d)", r"ln_\1"),
        (r"mlp\.fc1", "mlp.c_fc"), (r"mlp\.fc2", "mlp.c_proj"), (r"self_attn", "attn"),
        (r"text_model\.final_layer_norm", "ln_final"), (r"text_model\.embeddings\.token_embedding", "token_embedding"),
        (r"text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
        (r"text_projection\.weight", "text_projection"),
    )  # fmt: skip
    named = {}
    for name, value in held.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        named[prefix + name] = value.T.contiguous() if name == "text_projection" else value
    for name in [name for name in named if ".attn.q_proj." in name]:
        whole, kind = name.rpartition(".q_proj.")[0], name.rpartition(".")[2]
        rows = [named.pop(f"{whole}.{letter}_proj.{kind}") for letter in "qkv"]
        named[f"{whole}.in_proj_{kind}"] = torch.cat(rows)
    return named


def weights(folder: Path, part: str) -> dict[str, Tensor]:
    return load_file(next((folder / part).glob("*.safetensors")))


def clip_names(folder: Path, prefix: str) -> dict[str, Tensor]:
    held = weights(folder, "text_encoder")
    return {f"{prefix}text_model.{name.removeprefix('text_model.')}": value for name, value in held.items()}


def original(folder: Path) -> dict[str, Tensor]:
    """A whole Stable Diffusion checkpoint, with tensors that belong to no part."""
    return {
        **unet_names(weights(folder, "unet")),
        **vae_names(weights(folder, "vae")),
        **clip_names(folder, "cond_stage_model.transformer."),
        "betas": torch.zeros(1000),
    }


def answers(prior) -> dict[str, Tensor]:
    """What a prior makes of a text, an image and latents."""
    cameras = orbit(4, 16)
    text = prior.encode_text("red torus", "blue", PromptSettings("none"))
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(4, *prior.latent_shape, generator=draw)
    noise = prior.noise(x, torch.tensor([10, 500, 700, 900]), prior.condition(text, cameras))
    images = torch.rand(4, 16, 16, 3, generator=draw)
    return {
        "tokens": text.positive.tokens, "conditional": noise.conditional, "unconditional": noise.unconditional,
        "latents": prior.encode(images), "images": prior.decode(x),
    }  # fmt: skip


def same(prior, other) -> None:
    expected = answers(other)
    for name, value in answers(prior).items():
        torch.testing.assert_close(value, expected[name], msg=lambda text, name=name: f"{name}: {text}")
    assert prior.prediction_type == other.prediction_type


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion.build(tmp_path_factory.mktemp("single-sd"), "v_prediction")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


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


def test_another_file_of_the_same_name_is_converted_anew(folder, tmp_path):
    file, settings = tmp_path / "model.safetensors", ModelSettings(config=str(folder))
    state = original(folder)
    save_file(state, file)
    before = answers(load_prior(str(file), settings=settings))["conditional"]
    state["model.diffusion_model.out.2.bias"] = state["model.diffusion_model.out.2.bias"] + 1.0
    save_file(state, file)
    after = answers(load_prior(str(file), settings=settings))["conditional"]
    assert float((after - before).abs().max()) > 0.01


def test_a_folder_that_lost_a_part_is_made_again(folder, tmp_path):
    file, settings = tmp_path / "model.safetensors", ModelSettings(config=str(folder))
    save_file(original(folder), file)
    load_prior(str(file), settings=settings)
    (place,) = cache_folder("converted").iterdir()
    (place / "unet/config.json").unlink()
    same(load_prior(str(file), settings=settings), load_prior(str(folder)))


def test_an_xl_checkpoint_answers_as_its_folder(tmp_path):
    """The second encoder has ten layers, by which diffusers tells an XL checkpoint."""
    folder = sdxl.build(tmp_path / "xl")
    config = CLIPTextModelWithProjection.from_pretrained(folder, subfolder="text_encoder_2").config
    config.num_hidden_layers = 10
    torch.manual_seed(5)
    CLIPTextModelWithProjection(config).save_pretrained(folder / "text_encoder_2")
    state = {
        **unet_names(weights(folder, "unet")),
        **vae_names(weights(folder, "vae")),
        **clip_names(folder, "conditioner.embedders.0.transformer."),
        **open_clip_names(weights(folder, "text_encoder_2"), "conditioner.embedders.1.model."),
    }
    save_file(state, tmp_path / "xl.safetensors")
    assert kind_of(tmp_path / "xl.safetensors") == "xl_base"
    prior = load_prior(str(tmp_path / "xl.safetensors"), settings=ModelSettings(config=str(folder)))
    same(prior, load_prior(str(folder)))
    with pytest.raises(BadFile, match=r"is of the family StableDiffusion, and .*xl.safetensors of StableDiffusionXL"):
        sd = stable_diffusion.build(tmp_path / "sd")
        load_prior(str(tmp_path / "xl.safetensors"), settings=ModelSettings(config=str(sd)))


# Configs from the hub


def test_configs_come_from_the_matching_card(folder, tmp_path, monkeypatch):
    hub = FakeHub(monkeypatch, tmp_path / "hub")
    source = cards.cards()["sd15"].sources[0]
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


def test_of_stable_diffusion_2_the_user_says_what_it_predicts(folder, tmp_path):
    state = original(folder)
    state["model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"] = torch.zeros(320, 1024)
    save_file(state, tmp_path / "v2.safetensors")
    with pytest.raises(ConfigError, match=r"Stable Diffusion 2 .* --model.config sd21-base \(noise, 512 px\) or"):
        load_prior(str(tmp_path / "v2.safetensors"))


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
        ("inpainting", r"is a checkpoint of the kind inpainting; only Stable Diffusion 1, 2 and XL can be priors"),
        ("no vae", r"gives no vae that fits"),
        ("no text", r"gives no text_encoder that fits .*: The provided checkpoint does not seem to"),
        ("a tensor lacks", r"(gives no unet that fits|has no weights for 1 tensors of unet)"),
        ("another shape", r"gives no unet that fits"),
    ],
)
def test_files_that_are_no_prior(damage, message, folder, tmp_path):
    file, state = tmp_path / "model.safetensors", original(folder)
    save_file(state, file)
    first = "model.diffusion_model.input_blocks.0.0.weight"
    kept = {
        "lora": {"lora_unet_down.weight": torch.zeros(1)},
        "part": weights(folder, "unet"),
        "words": {"emb_params": torch.zeros(2, 4)},
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


def test_an_mvdream_checkpoint_joins_its_base(release, tmp_path, monkeypatch):
    folder, file = release
    assert kind_of(file) == "mvdream"
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


def test_the_card_gets_checkpoint_and_base_from_the_hub(release, tmp_path, monkeypatch):
    folder, file = release
    hub, card = FakeHub(monkeypatch, tmp_path / "hub"), cards.cards()["mvdream"]
    assert card.base and card.checkpoint == file.name
    base = cards.cards()[card.base].sources[0]
    (tmp_path / "remote").mkdir()
    shutil.copyfile(file, tmp_path / "remote" / file.name)
    with pytest.raises(ModelNotFound, match=r"cannot get mvdream .tried MVDream/MVDream.: there is no such model"):
        load_prior("mvdream")
    hub.folders[card.sources[0]] = tmp_path / "remote"
    with pytest.raises(ModelNotFound, match=r"mvdream needs the other parts of its base: cannot get sd21-base .*tried"):
        load_prior("mvdream")
    hub.folders[base] = base_of(folder, tmp_path / "base")
    assert cards.cached_source("mvdream") is None
    prior = load_prior("mvdream")
    same(prior, load_prior(str(folder)))
    assert prior.name == "mvdream" and not any(name.startswith("unet/") for name in hub.kept(base))
    assert cards.cached_source("mvdream") == card.sources[0] and cards.cached_source("sd21-base") is None
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
