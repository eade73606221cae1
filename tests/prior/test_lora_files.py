"""LoRA files fused: W + scale (alpha / r) B A by hand, in every layout; no adapter stays; errors in one sentence."""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from distillation.common import flat, step
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from tiny import sdxl, stable_diffusion
from tiny.recorder import guided_noise
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from gsdistill.distillation.vsd import VSD
from gsdistill.errors import BadFile, ConfigError
from gsdistill.prior.clip_unet import ClipUNet
from gsdistill.prior.loading import load_prior
from gsdistill.prior.pretrained import ModelSettings, Pretrained
from gsdistill.prior.prompts import PromptSettings
from gsdistill.scene.cameras import orbit

PLAIN = PromptSettings("none")
CAMERAS = orbit(2, 16)
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
BLOCKS = (*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
CONVOLUTIONS = ("conv1", "conv2", "time_emb_proj", "downsamplers.0.conv", "conv_in", "conv_out")
CLIP = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion.build(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sdxl.build(tmp_path_factory.mktemp("sdxl"))


@dataclass
class Lora:
    """What a file holds and what each weight of a part gains by it."""

    tensors: dict[str, torch.Tensor]
    gains: dict[str, torch.Tensor]  # by "part.layer.weight"

    def saved(self, path: Path) -> Path:
        save_file({name: tensor.contiguous() for name, tensor in self.tensors.items()}, path)
        return path

    def of(self, part: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(f"{part}."): gain for name, gain in self.gains.items() if name.startswith(f"{part}.")}


Naming = Callable[[str, str], tuple[str, str, str | None]]  # of part and layer: the names of A, B and alpha


def peft(part: str, layer: str) -> tuple[str, str, str | None]:
    """Diffusers' own today."""
    return f"{part}.{layer}.lora_A.weight", f"{part}.{layer}.lora_B.weight", None


def processors(part: str, layer: str) -> tuple[str, str, str | None]:
    """Diffusers' of old: the layers of an attention belong to its processor."""
    attention, _, last = layer.replace("to_out.0", "to_out").rpartition(".")
    stem = f"{part}.{attention}.processor.{last}_lora"
    return f"{stem}.down.weight", f"{stem}.up.weight", None


def kohya(part: str, layer: str) -> tuple[str, str, str | None]:
    """Of sd-scripts, with underscores for dots and an alpha for each layer."""
    short = {"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}[part]
    stem = f"{short}_{layer}".replace(".", "_")
    return f"{stem}.lora_down.weight", f"{stem}.lora_up.weight", f"{stem}.alpha"


def lora_of(
    parts: dict[str, tuple[Any, tuple[str, ...]]], naming: Naming, ranks: tuple[int, ...] = (3, 2), seed: int = 0
) -> Lora:
    """Random matrices for the layers of each part whose names end so; ranks and alphas take turns."""
    generator, lora = torch.Generator().manual_seed(seed), Lora({}, {})
    turns: Iterator[tuple[int, float]] = itertools.cycle(zip(itertools.cycle(ranks), (1.0, 4.0, 0.5, 2.0, 8.0)))
    for part, (module, ends) in parts.items():
        for layer, inner in module.named_modules():
            if not f".{layer}".endswith(tuple(f".{end}" for end in ends)):
                continue
            rank, alpha = next(turns)
            out, *rest = inner.weight.shape
            down = 0.1 * torch.randn(rank, *rest, generator=generator)
            up = 0.1 * torch.randn(out, rank, *([1] * (len(rest) - 1)), generator=generator)
            known = f"text_model.{layer}" if isinstance(module, CLIPTextModel) else layer  # in files, as of old
            name_a, name_b, name_alpha = naming(part, known)
            lora.tensors |= {name_a: down, name_b: up}
            if name_alpha:
                lora.tensors[name_alpha] = torch.tensor(alpha)
            share = alpha / rank if name_alpha else 1.0
            lora.gains[f"{part}.{layer}.weight"] = share * (up.flatten(1) @ down.flatten(1)).reshape(inner.weight.shape)
    assert lora.gains
    return lora


def unet_of(model: Path) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(model, subfolder="unet", low_cpu_mem_usage=False)


def text_of(model: Path) -> CLIPTextModel:
    return CLIPTextModel.from_pretrained(model, subfolder="text_encoder")


def loaded(model: Path, *files: Path, scale: float = 1.0) -> Pretrained:
    prior = load_prior(str(model), settings=ModelSettings(lora=files, lora_scale=scale))
    assert isinstance(prior, Pretrained)
    return prior


def assert_gained(module: Any, plain: Any, gains: dict[str, torch.Tensor], scale: float) -> None:
    """The same names, every weight with what it gains and no other changed."""
    found, before = module.state_dict(), plain.state_dict()
    assert found.keys() == before.keys() and gains.keys() <= found.keys()
    for name, weight in before.items():
        if name in gains:
            torch.testing.assert_close(found[name], weight + scale * gains[name], rtol=0, atol=1e-7)
            assert float(gains[name].abs().max()) > 1e-3
        else:
            assert torch.equal(found[name], weight)


@pytest.mark.parametrize(
    ("naming", "ends"),
    [(peft, BLOCKS + CONVOLUTIONS), (processors, ATTENTION), (kohya, BLOCKS + CONVOLUTIONS)],
)
@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_a_fused_network_is_the_sum_by_hand(scale, naming, ends, model, tmp_path):
    """Linear layers and convolutions, ranks and alphas that differ between layers."""
    unet = unet_of(model)
    lora = lora_of({"unet": (unet, ends)}, naming)
    prior = loaded(model, lora.saved(tmp_path / "lora.safetensors"), scale=scale)
    assert_gained(prior._network, unet, lora.of("unet"), scale)


@pytest.mark.parametrize("family", ["sd3", "sana", "deepfloyd", "mvdream"])
def test_every_family_takes_them(family, tmp_path):
    """Linear layers of attentions, by the names of diffusers."""
    folder = importlib.import_module(f"tiny.{family}").build(tmp_path / family)
    bare = loaded(folder)
    lora = lora_of({bare.NETWORK: (bare._network, ("to_q", "to_out.0"))}, peft)
    prior = loaded(folder, lora.saved(tmp_path / "lora.safetensors"), scale=0.7)
    assert_gained(prior._network, bare._network, lora.of(bare.NETWORK), 0.7)
    condition = prior.condition(prior.encode_text("a cat", "", PLAIN), orbit(4, 16))
    x, t = torch.randn(4, *prior.latent_shape, generator=torch.Generator().manual_seed(2)), torch.full((4,), 500)
    change = prior.noise(x, t, condition).conditional - bare.noise(x, t, condition).conditional
    assert bool(change.isfinite().all()) and float(change.abs().max()) > 1e-4


@pytest.mark.parametrize("naming", [peft, kohya])
def test_the_text_encoder_has_its_share(naming, model, tmp_path):
    encoder, scale = text_of(model), 0.8
    lora = lora_of({"text_encoder": (encoder, CLIP)}, naming)
    prior = loaded(model, lora.saved(tmp_path / "lora.safetensors"), scale=scale)
    assert_gained(prior._network, unet_of(model), {}, scale)
    weights = dict(encoder.named_parameters())
    with torch.no_grad():
        for name, gain in lora.of("text_encoder").items():
            weights[name] += scale * gain
        ids = CLIPTokenizer.from_pretrained(model / "tokenizer")(
            ["a cat"], padding="max_length", max_length=40, return_tensors="pt"
        ).input_ids
        by_hand = encoder(ids).last_hidden_state
    found = prior.encode_text("a cat", "", PLAIN).positive.tokens
    torch.testing.assert_close(found, by_hand, rtol=0, atol=1e-5)
    assert float((found - loaded(model).encode_text("a cat", "", PLAIN).positive.tokens).abs().max()) > 1e-2


def test_the_order_of_two_files_does_not_matter(model, tmp_path):
    """Sums, up to rounding; the second file has ranks of its own."""
    unet = unet_of(model)
    first = lora_of({"unet": (unet, BLOCKS), "text_encoder": (text_of(model), CLIP)}, kohya)
    second = lora_of({"unet": (unet, ATTENTION), "text_encoder": (text_of(model), CLIP)}, peft, (4,), seed=1)
    files = first.saved(tmp_path / "1.safetensors"), second.saved(tmp_path / "2.safetensors")
    one, other = loaded(model, *files, scale=0.6), loaded(model, *reversed(files), scale=0.6)
    gains = first.of("unet")
    both = gains | {name: gain + gains.get(name, 0.0) for name, gain in second.of("unet").items()}
    for prior in (one, other):
        assert_gained(prior._network, unet, both, 0.6)
    tokens = [prior.encode_text("a dog", "", PLAIN).positive.tokens for prior in (one, other)]
    torch.testing.assert_close(*tokens, rtol=0, atol=1e-5)


@pytest.mark.parametrize("naming", [peft, kohya])
def test_the_noise_is_that_of_a_pipeline_with_the_file(naming, model, tmp_path):
    """There it is not fused but adds to each layer's answer."""
    parts = {"unet": (unet_of(model), BLOCKS), "text_encoder": (text_of(model), CLIP)}
    file = lora_of(parts, naming, (4,)).saved(tmp_path / "lora.safetensors")
    if naming is kohya:  # one alpha: where they differ the pipeline's are wrong
        tensors = lora_of(parts, naming, (4,)).tensors
        alphas = {name: torch.tensor(2.0) for name in tensors if name.endswith(".alpha")}
        save_file(tensors | alphas, file)
    pipeline = StableDiffusionPipeline.from_pretrained(model)
    pipeline.load_lora_weights(str(file), adapter_name="x")
    pipeline.set_adapters(["x"], [0.7])
    prior, x = loaded(model, file, scale=0.7), torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    condition = prior.condition(prior.encode_text("a cat", "blue", PLAIN), CAMERAS)
    theirs = guided_noise(pipeline, x, 400, 7.5, {"prompt": "a cat", "negative_prompt": "blue"})
    ours = prior.noise(x, torch.tensor([400, 400]), condition).guided(7.5)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    bare = guided_noise(StableDiffusionPipeline.from_pretrained(model), x, 400, 7.5, {"prompt": "a cat"})
    assert float((bare - theirs).abs().max()) > 0.1


def test_the_strength_that_a_file_declares_is_kept(model, tmp_path):
    """Trained with peft, saved by diffusers with its settings: alpha / r for most layers, another for one kind."""
    unet = unet_of(model)
    config = LoraConfig(
        r=4, lora_alpha=12, alpha_pattern={"to_q": 2}, rank_pattern={"to_v": 2}, target_modules=["to_q", "to_k", "to_v"]
    )
    unet.add_adapter(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in unet.named_parameters():
            if ".lora_" in name:
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, get_peft_model_state_dict(unet), unet_lora_adapter_metadata=config.to_dict()
    )
    gains = {}
    for name, layer in unet.named_modules():
        if name.endswith(("to_q", "to_k", "to_v")):
            share = {"to_q": 2 / 4, "to_k": 12 / 4, "to_v": 12 / 2}[name[-4:]]
            up, down = layer.lora_B["default"].weight, layer.lora_A["default"].weight
            gains[f"{name}.weight"] = (share * up @ down).detach()
    prior = loaded(model, tmp_path / "pytorch_lora_weights.safetensors")
    assert_gained(prior._network, unet_of(model), gains, 1.0)


@pytest.mark.parametrize("naming", [peft, kohya])
def test_sdxl_has_both_text_encoders_shares(naming, large, tmp_path):
    """Against a pipeline that fuses by itself (one alpha and rank, which it gets right)."""
    second = CLIPTextModelWithProjection.from_pretrained(large, subfolder="text_encoder_2")
    parts = {
        "unet": (unet_of(large), BLOCKS),
        "text_encoder": (text_of(large), CLIP),
        "text_encoder_2": (second, CLIP),
    }
    lora = lora_of(parts, naming, (4,))
    for name in lora.tensors:
        if name.endswith(".alpha"):
            lora.tensors[name] = torch.tensor(2.0)
    lora.tensors = {name.replace("lora_te_", "lora_te1_"): tensor for name, tensor in lora.tensors.items()}
    file = lora.saved(tmp_path / "lora.safetensors")
    pipeline = StableDiffusionXLPipeline.from_pretrained(large)
    pipeline.load_lora_weights(str(file))
    pipeline.fuse_lora(components=["unet", "text_encoder", "text_encoder_2"], lora_scale=0.5)
    prior, x = loaded(large, file, scale=0.5), torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    text = prior.encode_text("a cat", "blue", PLAIN)
    tokens, _, pooled, _ = pipeline.encode_prompt("a cat")
    torch.testing.assert_close(text.positive.tokens, tokens.detach(), rtol=0, atol=1e-5)
    torch.testing.assert_close(text.positive.pooled, pooled.detach(), rtol=0, atol=1e-5)
    theirs = guided_noise(pipeline, x, 400, 7.5, {"prompt": "a cat", "negative_prompt": "blue"})
    ours = prior.noise(x, torch.tensor([400, 400]), prior.condition(text, CAMERAS)).guided(7.5)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    assert float((loaded(large).encode_text("a cat", "", PLAIN).positive.pooled - pooled).abs().max()) > 1e-3


def test_sdxl_reads_the_block_names_of_the_original_network(large, tmp_path):
    """As sd-scripts trains it; block 3 of the input is the second stage's first with one layer per stage."""
    unet, generator = unet_of(large), torch.Generator().manual_seed(0)
    names = {
        "input_blocks_3_1_transformer_blocks_0_ff_net_2": "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2",
        "middle_block_1_proj_in": "mid_block.attentions.0.proj_in",
        "output_blocks_0_1_transformer_blocks_1_attn2_to_k": "up_blocks.0.attentions.0.transformer_blocks.1.attn2.to_k",
    }
    tensors, gains = {}, {}
    for theirs, ours in names.items():
        out, rest = unet.get_submodule(ours).weight.shape
        down, up = torch.randn(2, rest, generator=generator), torch.randn(out, 2, generator=generator)
        stem = f"lora_unet_{theirs}"
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(1.0)}
        gains[f"{ours}.weight"] = 0.5 * up @ down
    prior = loaded(large, Lora(tensors, {}).saved(tmp_path / "lora.safetensors"), scale=0.1)
    assert_gained(prior._network, unet, gains, 0.1)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_rounds_the_sum(precision, model, tmp_path):
    unet, dtype = unet_of(model), getattr(torch, precision)
    lora = lora_of({"unet": (unet, BLOCKS)}, kohya)
    settings = ModelSettings(precision=precision, lora=(lora.saved(tmp_path / "lora.safetensors"),))
    found = load_prior(str(model), settings=settings)._network.state_dict()
    for name, gain in lora.of("unet").items():
        assert found[name].dtype == dtype
        whole = unet.state_dict()[name] + gain
        assert float((found[name].float() - whole).norm() / whole.norm()) < 4 * torch.finfo(dtype).eps


def test_nothing_of_the_adapter_stays_and_the_student_works(model, tmp_path):
    """VSD's own LoRA comes on top: it begins as the fused prior, trains, and leaves it alone."""
    parts = {"unet": (unet_of(model), BLOCKS), "text_encoder": (text_of(model), CLIP)}
    prior = loaded(model, lora_of(parts, kohya).saved(tmp_path / "lora.safetensors"))
    network = prior._network
    assert not getattr(network, "peft_config", None) and not network.training
    assert not [name for name, _ in network.named_parameters() if "lora" in name]
    assert not [name for name, value in network.named_parameters() if value.requires_grad]
    condition = prior.condition(prior.encode_text("a cat", "", PLAIN), CAMERAS)
    x0, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5)), torch.tensor([100, 700])
    before = prior.noise(x0, t, condition).conditional
    method = VSD(flat(7.5), lora_rate=0.01)
    state = method.init_state(prior, torch.Generator().manual_seed(0))
    losses = []
    for _ in range(6):
        result = step(method, prior, x0, CAMERAS, seed=3, state=state, condition=condition)
        losses.append(float(result.guidance.figures["lora_loss"]))
        state = result.after
    assert losses[-1] < losses[0]
    assert torch.equal(prior.noise(x0, t, condition).conditional, before)


def test_texts_are_kept_for_each_file_and_scale(model, tmp_path):
    parts = {"text_encoder": (text_of(model), CLIP)}
    first = lora_of(parts, peft).saved(tmp_path / "1.safetensors")
    second = lora_of(parts, peft, seed=1).saved(tmp_path / "2.safetensors")
    priors = [loaded(model), loaded(model, first), loaded(model, second), loaded(model, first, scale=0.5)]
    tokens = [prior.encode_text("a cow", "", PLAIN).positive.tokens for prior in priors]
    for one, other in itertools.combinations(tokens, 2):
        assert float((one - other).abs().max()) > 1e-3
    lora_of(parts, peft, seed=2).saved(first)
    changed = loaded(model, first).encode_text("a cow", "", PLAIN).positive.tokens
    assert float((changed - tokens[1]).abs().max()) > 1e-3


def test_scale_zero_changes_nothing(model, tmp_path):
    unet = unet_of(model)
    lora = lora_of({"unet": (unet, BLOCKS)}, kohya)
    prior = loaded(model, lora.saved(tmp_path / "lora.safetensors"), scale=0.0)
    assert_gained(prior._network, unet, {}, 1.0)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        ("missing", ConfigError, r"model\.lora: there is no file .*x\.safetensors"),
        ("a folder", ConfigError, r"model\.lora: there is no file .*x\.safetensors"),
        ("no safetensors", BadFile, r"x\.safetensors cannot be read as \.safetensors"),
        ("cut", BadFile, r"x\.safetensors cannot be read as \.safetensors"),
        ("other tensors", BadFile, r"x\.safetensors is no LoRA file: none of its 1 tensors"),
        ("another size", BadFile, r"x\.safetensors does not fit the model's unet: .*size mismatch"),
        ("another network", BadFile, r"x\.safetensors does not fit the model's unet: none of its layers"),
        ("unknown layers", BadFile, r"x\.safetensors does not fit the model's unet: 32 of its 48 layers are not"),
        ("some unknown layers", BadFile, r"x\.safetensors does not fit the model's unet: 1 of its 49 layers are not"),
        ("unknown kohya", BadFile, r"x\.safetensors does not fit the model's unet: .*lora_unet_x\.hada_w1_a"),
        ("half a layer", BadFile, r"x\.safetensors does not fit the model's unet: it has 48 matrices A and 47 .* B"),
        ("dora", BadFile, r"x\.safetensors is of the kind DoRA"),
    ],
)
def test_files_that_cannot_be_used_are_named_in_one_sentence(damage, error, message, model, large, tmp_path, capfd):
    unet, file = unet_of(model), tmp_path / "x.safetensors"
    lora = lora_of({"unet": (unet, BLOCKS)}, kohya if "kohya" in damage or damage == "dora" else peft)
    names = list(lora.tensors)
    if damage == "a folder":
        file.mkdir()
    elif damage == "no safetensors":
        file.write_text("this is no file of tensors at all")
    elif damage == "cut":
        lora.saved(file).write_bytes(file.read_bytes()[:-100])
    elif damage == "other tensors":
        save_file({"weight": torch.zeros(1)}, file)
    elif damage == "another size":
        lora_of({"unet": (unet_of(large), BLOCKS)}, peft).saved(file)
    elif damage == "another network":
        save_file({name.replace("unet.", "transformer."): tensor for name, tensor in lora.tensors.items()}, file)
    elif damage == "unknown layers":
        save_file({name.replace("attn", "attention"): tensor for name, tensor in lora.tensors.items()}, file)
    elif damage == "some unknown layers":
        extra = [name for name in names if "mid_block" in name and "attn1.to_q" in name]
        save_file(lora.tensors | {name.replace("attn1", "attn3"): lora.tensors[name].clone() for name in extra}, file)
    elif damage == "unknown kohya":
        save_file({"lora_unet_x.hada_w1_a": torch.zeros(2, 2)}, file)
    elif damage == "half a layer":
        del lora.tensors[names[1]]
        lora.saved(file)
    elif damage == "dora":
        lora.tensors[f"{names[0].split('.')[0]}.dora_scale"] = torch.zeros(1)
        lora.saved(file)
    with pytest.raises(error, match=message) as caught:
        loaded(model, file)
    assert "\n" not in str(caught.value) and capfd.readouterr().err == ""


def test_a_text_encoders_file_that_does_not_fit_is_told_when_texts_are_encoded(model, large, tmp_path):
    lora = lora_of({"text_encoder": (CLIPTextModel(sdxl_config(large)), CLIP)}, peft)
    prior = loaded(model, lora.saved(tmp_path / "x.safetensors"))
    with pytest.raises(BadFile, match=r"x\.safetensors does not fit the model's text_encoder"):
        prior.encode_text("a pig", "", PLAIN)


def sdxl_config(large: Path) -> Any:
    """Of a text encoder of another width."""
    return CLIPTextModelWithProjection.from_pretrained(large, subfolder="text_encoder_2").config


def test_a_family_without_a_reader_of_such_files_says_so(model, tmp_path, monkeypatch):
    monkeypatch.setattr(ClipUNet, "PIPELINE", None)
    save_file({"unet.lora_A.weight": torch.zeros(1, 1)}, tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match=r"model\.lora: the prior .* takes no LoRA files"):
        loaded(model, tmp_path / "x.safetensors")
    assert json.loads((model / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"
