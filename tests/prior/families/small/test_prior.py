"""The shapes prior's own network is diffusers' network, faster; what it does not know is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from gsdistill.core.errors import BadFile, Notice, PromptError
from gsdistill.models.catalogue import find_model
from gsdistill.models.eight_bits import convert_folder
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.families.small.prior import WorldPrior, read_part_weights, scaled_linear_schedule
from gsdistill.prior.families.small.text import SmallText
from gsdistill.prior.families.small.unet import FIXED, NAMED, SmallUNet
from gsdistill.prior.families.stable_diffusion import StableDiffusion
from gsdistill.prior.loading import load_prior
from gsdistill.scene.viewpoints import orbit

SHIPPED = Path(find_model("shapes")[0])
TRUNCATION = {"direction": "Right", "strategy": "LongestFirst", "stride": 0}
PADDING = {
    "strategy": {"Fixed": 77}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
    "pad_token": "x",
}  # fmt: skip


def tiny(levels: int = 2, layers: int = 1, heads: Any = 2, **more: Any) -> UNet2DConditionModel:
    """A random network of the kind, its zero biases and unit norms replaced too."""
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16, 24)[:levels], layers_per_block=layers,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * (levels - 1)),
        up_block_types=(*("CrossAttnUpBlock2D",) * (levels - 1), "UpBlock2D"), cross_attention_dim=12,
        attention_head_dim=heads, norm_num_groups=4, class_embed_type="projection",
        projection_class_embeddings_input_dim=5, resnet_time_scale_shift="scale_shift", **more,
    )  # fmt: skip
    for value in network.parameters():
        value.data += 0.1 * torch.randn_like(value)
    return network.eval()


def shipped(precision: Any = "float32", *lora: Path) -> WorldPrior:
    prior = load_prior("shapes", settings=ModelSettings(precision=precision, lora=lora))
    assert isinstance(prior, WorldPrior)
    return prior


def ours(network: UNet2DConditionModel, folder: Path, dtype: torch.dtype = torch.float32) -> SmallUNet:
    network.save_config(folder)
    return SmallUNet(folder, network.state_dict(), torch.device("cpu"), dtype)


def inputs(count: int, channels: int, size: int, tokens: int, width: int, cameras: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    return (
        torch.randn(count, channels, size, size), torch.randint(0, 1000, (count,)), torch.randn(count, tokens, width),
        torch.randn(count, cameras),
    )  # fmt: skip


def answers(network: Any, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, cameras: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network(sample=x, timestep=t, encoder_hidden_states=text, class_labels=cameras).sample


@pytest.mark.parametrize(
    ("levels", "layers", "heads"), [(2, 1, 2), (3, 1, 4), (3, 2, 2), (2, 2, [2, 4]), (3, 1, [2, 4, 8])]
)
@torch.no_grad()
def test_the_answers_are_those_of_diffusers(levels, layers, heads, tmp_path):
    network = tiny(levels, layers, heads)
    given = inputs(3, 3, 8, 7, 12, 5)
    torch.testing.assert_close(answers(ours(network, tmp_path), *given), answers(network, *given), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_shipped_weights_answer_as_in_diffusers(tmp_path):
    convert_folder(SHIPPED, tmp_path / "plain", packed=False)
    network = UNet2DConditionModel.from_pretrained(tmp_path / "plain" / "unet").float().eval()
    given = inputs(4, 12, 16, 24, 96, 18)
    true = answers(network, *given)
    torch.testing.assert_close(answers(shipped().load_network(), *given), true, rtol=1e-5, atol=2e-5)
    half = answers(shipped("bfloat16").load_network(), *given)
    error = float((half - true).norm() / true.norm())
    assert half.dtype == torch.float32 and 1e-4 < error < 0.003  # one rounding to bfloat16 is up to 0.004


@pytest.mark.slow
@pytest.mark.parametrize(("t", "bound"), [(50, 0.9999), (500, 0.999), (800, 0.995), (950, 0.98)])
def test_bfloat16_keeps_the_direction_of_guidance(t, bound):
    """h is a third of eps at t = 50 and a fiftieth at 950, where rounding would bury it."""
    found, cameras = [], orbit(4, 64)
    for precision in ("float32", "bfloat16"):
        prior = load_prior("shapes", settings=ModelSettings(precision=precision))
        torch.manual_seed(0)
        x0 = prior.encode(torch.rand(4, 8, 8, 3).repeat_interleave(8, 1).repeat_interleave(8, 2))
        times = torch.full((4,), t)
        x_t = prior.schedule.add_noise(x0, torch.randn_like(x0), times)
        told = prior.condition(prior.encode_text("a green chair", ""), cameras)
        found.append(prior.noise(x_t, times, told).direction.flatten())
    assert float(torch.cosine_similarity(*found, dim=0)) > bound


@pytest.mark.parametrize("field", sorted([*FIXED, *NAMED]))
def test_another_kind_of_network_is_refused_by_its_field(field, tmp_path):
    config = dict(tiny().config) | {field: "another"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadFile, match=rf"no {field} = another"):
        SmallUNet(tmp_path, {}, torch.device("cpu"), torch.float32)


def test_what_must_be_named_is(tmp_path):
    """Diffusers would take another kind of embedding where the field is left out."""
    config = {key: value for key, value in dict(tiny().config).items() if key != "class_embed_type"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadFile, match="no class_embed_type = None"):
        SmallUNet(tmp_path, {}, torch.device("cpu"), torch.float32)


def test_a_block_that_is_not_written_out_is_refused(tmp_path):
    config = dict(tiny().config) | {"down_block_types": ["DownBlock2D", "AttnDownBlock2D"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadFile, match="AttnDownBlock2D"):
        SmallUNet(tmp_path, {}, torch.device("cpu"), torch.float32)


def test_a_missing_weight_is_named(tmp_path):
    network = tiny()
    network.save_config(tmp_path)
    weights = network.state_dict()
    del weights["mid_block.resnets.1.conv2.weight"]
    with pytest.raises(BadFile, match=r"there is no 'mid_block\.resnets\.1\.conv2\.weight"):
        SmallUNet(tmp_path, weights, torch.device("cpu"), torch.float32)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "shapes"))


def test_a_folder_of_the_world_is_served_by_it_and_another_is_not(copied):
    assert type(load_prior(str(copied))) is WorldPrior
    card = json.loads((copied / "gsdistill.json").read_text())
    (copied / "gsdistill.json").write_text(json.dumps({key: value for key, value in card.items() if key != "world"}))
    assert type(load_prior(str(copied))) is StableDiffusion


def test_the_levels_are_those_of_diffusers(tmp_path):
    for ends in ((0.00085, 0.012), (0.0001, 0.02)):
        scheduler = DDPMScheduler(beta_start=ends[0], beta_end=ends[1], beta_schedule="scaled_linear")
        scheduler.save_config(tmp_path)
        schedule, kind = scaled_linear_schedule(tmp_path / "scheduler_config.json")
        assert kind == "epsilon"
        torch.testing.assert_close(schedule.alphas.square(), scheduler.alphas_cumprod.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"beta_schedule": "linear"}, "beta_schedule 'linear'"),
        ({"rescale_betas_zero_snr": True}, "scaled_linear"),
        ({"trained_betas": [0.1]}, "scaled_linear"),
        ({"prediction_type": "score"}, "prediction_type 'score' is unknown"),
        ({"num_train_timesteps": "many"}, "is not the config of a scheduler"),
    ],
)
def test_another_schedule_is_refused(change, told, tmp_path):
    DDPMScheduler(beta_schedule="scaled_linear").save_config(tmp_path)
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadFile, match=told):
        scaled_linear_schedule(path)


@pytest.mark.slow
def test_lora_files_are_merged(tmp_path):
    """The same change of every answer as in diffusers' own network."""
    given = inputs(2, 12, 16, 24, 96, 18)
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    down, up = torch.randn(2, 128), torch.randn(128, 2)
    save_file({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, tmp_path / "one.safetensors")
    prior = shipped("float32", tmp_path / "one.safetensors")
    plain, merged = (answers(one.load_network(), *given) for one in (shipped(), prior))
    network = super(WorldPrior, prior).load_network()
    assert float((merged - plain).norm() / plain.norm()) > 1e-3
    torch.testing.assert_close(merged, answers(network, *given), rtol=1e-5, atol=2e-5)


def test_texts_are_encoded_as_in_transformers():
    texts = ["a red torus", "", "a photo of a blue cube on a yellow cylinder", "A  Green,\tchair!", "zebra \u00e9"]
    prior = shipped()
    ours, theirs = prior.encode_texts(texts), super(WorldPrior, prior).encode_texts(texts)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.tokens, other.tokens, rtol=1e-5, atol=2e-6)


def test_a_text_that_is_too_long_is_refused():
    prior = shipped()
    with pytest.raises(PromptError, match=r"has \d+ tokens, the prior shapes reads 24 at most"):
        prior.encode_texts(["red " * 40])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"num_hidden_layers": 3}, r"there is no 'encoder\.layers\.2\.layer_norm1\.weight"),
        ({"num_attention_heads": 5}, "do not fit its config: unflatten"),
        (None, "not valid JSON"),
    ],
)
def test_another_text_encoder_is_refused(change, told, copied):
    path = copied / "text_encoder" / "config.json"
    path.write_text("" if change is None else json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadFile, match=told):
        SmallText(copied, read_part_weights(copied / "text_encoder"), torch.device("cpu"))(["a red cube"])


def test_words_are_filled_up_as_the_tokenizer_says_whatever_else_the_folder_holds(copied):
    """CLIP's configs often name another pad token; saved tokenizers may remember a padding and a truncation."""
    true = shipped().encode_texts(["a red torus on a blue cube"])[0].tokens
    for name, change in (
        ("text_encoder/config.json", {"pad_token_id": 1}),
        ("tokenizer/tokenizer.json", {"truncation": {**TRUNCATION, "max_length": 5}}),
        ("tokenizer/tokenizer.json", {"padding": PADDING}),
    ):
        path = copied / name
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    encoder = SmallText(copied, read_part_weights(copied / "text_encoder"), torch.device("cpu"))
    assert torch.equal(encoder(["a red torus on a blue cube"]), true)


@pytest.mark.parametrize(
    ("given", "told"), [({}, "does not say with which pad_token"), ({"pad_token": "<none>"}, "'<none>' is not in")]
)
def test_a_tokenizer_must_say_how_texts_are_filled_up(given, told, copied):
    (copied / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(given))
    with pytest.raises(BadFile, match=re.escape(told)):
        SmallText(copied, {}, torch.device("cpu"))


def test_a_tokenizer_in_two_files_is_read_by_transformers(copied, tmp_path):
    """As every family's is."""
    words = json.loads((copied / "tokenizer" / "tokenizer.json").read_text())["model"]
    (copied / "tokenizer" / "vocab.json").write_text(json.dumps(words["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in words["merges"]]
    (copied / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    (copied / "tokenizer" / "tokenizer.json").unlink()
    prior = load_prior(str(copied))
    assert isinstance(prior, WorldPrior)
    tokens = prior.encode_texts(["a red torus"])[0].tokens
    torch.testing.assert_close(tokens, shipped().encode_texts(["a red torus"])[0].tokens, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    "change",
    [{"layers_per_block": None}, {"norm_eps": None}, {"sample_size": None}, {"layers_per_block": [1, 1]},
     {"attention_head_dim": []}, {"cross_attention_dim": 11}],
    ids=str,
)  # fmt: skip
def test_a_config_that_does_not_fit_is_one_sentence(change, tmp_path):
    network = tiny()
    config = {key: value for key, value in (dict(network.config) | change).items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadFile, match=r"its weights and its config\.json are not of one network"):
        SmallUNet(tmp_path, network.state_dict(), torch.device("cpu"), torch.float32)


def test_a_card_without_a_camera_is_refused(copied):
    path = copied / "gsdistill.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "camera"}))
    with pytest.raises(BadFile, match="is told the camera; it has none"):
        load_prior(str(copied))


def test_a_broken_tokenizer_is_one_sentence(copied):
    (copied / "tokenizer" / "tokenizer.json").write_text("{}")
    with pytest.raises(BadFile, match="is not a tokenizer"):
        SmallText(copied, {}, torch.device("cpu"))


@pytest.mark.slow
def test_nothing_of_diffusers_is_imported():
    """It would take longer than fifty steps."""
    code = (
        "import sys; from gsdistill.prior.loading import load_prior;"
        "load_prior('shapes').encode_texts(['a red cube']);"
        "print({'diffusers', 'transformers', 'peft', 'scipy', 'torch._dynamo'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_broken_weights_are_one_sentence(copied):
    file = next((copied / "unet").glob("*.safetensors"))
    (copied / "SHA256SUMS").unlink()
    save_file({key: value for key, value in load_file(file).items() if key != "conv_out.bias"}, file)
    with pytest.raises(BadFile, match=r"there is no 'conv_out\.bias"):
        load_prior(str(copied))


@pytest.mark.parametrize(
    ("prompt", "weak", "near"),
    [("a zebra", "zebra", "cat, dog"), ("a cat on a blue chair", "chair", "table"), ("a dog on a table", "", "")],
)
def test_a_prompt_of_what_is_not_learnt_is_told(prompt, weak, near, recwarn):
    prior = load_prior("objects")
    prior.origin = replace(prior.origin, card=replace(prior.origin.card, learnt=("cat", "dog", "table")))
    prior.encode_text(prompt, "")
    told = [str(notice.message) for notice in recwarn if issubclass(notice.category, Notice)]
    assert len(told) == bool(weak)
    for line in told:
        assert line.startswith(f"the prior objects has not learnt '{weak}' well")
        assert line.endswith(f"it draws well: {near}.")
