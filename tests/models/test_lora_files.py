"""LoRA files fused: W + scale (alpha / r) B A by hand, in every layout; no adapter stays; errors in one sentence."""

from __future__ import annotations

import importlib
import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from distillation.common import flat, step
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from tiny import sdxl, stable_diffusion
from tiny.lora import (
    ATTENTION,
    BLOCKS,
    CLIP,
    CONVOLUTIONS,
    Lora,
    assert_gained,
    kohya,
    lora_of,
    peft,
    processors,
    text_of,
    unet_of,
)
from tiny.recorder import guided_noise
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.integrations.peft import PeftAdapterMixin

from gsdistill.core.errors import BadFile, ConfigError, Notice
from gsdistill.distillation.vsd import VSD
from gsdistill.models.lora_files import check_lora, fuse
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.families.base import Pretrained
from gsdistill.prior.families.clip_unet import ClipUNet
from gsdistill.prior.loading import load_prior
from gsdistill.prior.prompts import PromptSettings
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.config import from_dict

PLAIN = PromptSettings("none")
CAMERAS = orbit(2, 16)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion.build(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sdxl.build(tmp_path_factory.mktemp("sdxl"))


def loaded(model: Path, *files: Path, scale: float = 1.0) -> Pretrained:
    prior = load_prior(str(model), settings=ModelSettings(lora=files, lora_scale=scale))
    assert isinstance(prior, Pretrained)
    return prior


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    monkeypatch.setattr(ClipUNet, "LORA", ())
    save_file({"unet.lora_A.weight": torch.zeros(1, 1)}, tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match=r"model\.lora: the prior .* takes no LoRA files"):
        loaded(model, tmp_path / "x.safetensors")
    assert json.loads((model / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"


BOTH = ("unet", "text_encoder")


def renamed(lora: Lora, *changes: tuple[str, str]) -> Lora:
    """The same file with other names."""
    tensors = lora.tensors
    for old, new in changes:
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    return Lora(tensors, lora.gains)


LAYOUTS = {
    "an adapter's name": ((".lora_A.", ".lora_A.default."), (".lora_B.", ".lora_B.default.")),
    "an adapter's name in some": (("to_q.lora_A.", "to_q.lora_A.my_style."), ("to_q.lora_B.", "to_q.lora_B.my_style.")),
    "no prefix": (("unet.", ""),),
    "ComfyUI": (("unet.", "diffusion_model."), (".lora_A.", ".lora_down."), (".lora_B.", ".lora_up.")),
    "a whole checkpoint": (("unet.", "model.diffusion_model."),),
    "peft, with the part": (("unet.", "base_model.model.unet."),),
}


@pytest.mark.filterwarnings("ignore:beside the LoRA file")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_sum(layout, model, tmp_path):
    unet, plain = unet_of(model), unet_of(model)
    lora = renamed(lora_of({"unet": (unet, BLOCKS + CONVOLUTIONS)}, peft), *LAYOUTS[layout])
    (tmp_path / "adapter_config.json").write_text(json.dumps({"use_rslora": True}))  # which is of peft's alone
    if layout.startswith("peft"):
        (tmp_path / "adapter_config.json").unlink()
    fuse([lora.saved(tmp_path / "X.SAFETENSORS")], 0.7, "unet", unet, BOTH)
    assert_gained(unet, plain, lora.of("unet"), 0.7)


def test_a_file_of_the_network_alone_leaves_a_text_encoder_as_it_is_and_the_other_way_round(model, tmp_path):
    unet, encoder = unet_of(model), text_of(model)
    for part, ends, module in (("unet", BLOCKS, encoder), ("text_encoder", CLIP, unet)):
        other = "text_encoder" if part == "unet" else "unet"
        before = {name: weight.clone() for name, weight in module.state_dict().items()}
        lora = lora_of({part: (unet if part == "unet" else encoder, ends)}, kohya)
        fuse([lora.saved(tmp_path / "x.safetensors")], 1.0, other, module, BOTH)
        assert all(torch.equal(weight, before[name]) for name, weight in module.state_dict().items())


@pytest.mark.parametrize("level", ["", "text_model."])
@pytest.mark.parametrize("kind", [CLIPTextModel, CLIPTextModelWithProjection])
def test_a_text_encoder_needs_no_adapters_of_any_library(kind, level, large, tmp_path, monkeypatch):
    """Transformers asks for a release of peft that its own requirements do not name."""

    def refused(*args: Any, **kwargs: Any) -> None:
        raise ValueError("The version of PEFT you are using is not compatible")

    for name in ("load_adapter", "add_adapter", "delete_adapter"):
        monkeypatch.setattr(PeftAdapterMixin, name, refused)
    monkeypatch.setitem(sys.modules, "peft", None)
    part = "text_encoder" if kind is CLIPTextModel else "text_encoder_2"
    encoder, plain = (kind.from_pretrained(large, subfolder=part) for _ in range(2))
    lora = lora_of({part: (encoder, CLIP)}, peft)
    lora = renamed(lora, ("text_model.", ""), (f"{part}.", f"{part}.{level}"))
    fuse([lora.saved(tmp_path / "x.safetensors")], 0.8, part, encoder, ("unet", "text_encoder", "text_encoder_2"))
    assert_gained(encoder, plain, lora.of(part), 0.8)


def test_what_is_no_layer_is_told_and_the_layers_are_added(model, tmp_path):
    unet, plain = unet_of(model), unet_of(model)
    lora = lora_of({"unet": (unet, BLOCKS)}, kohya)
    lora.tensors |= {"bundle_emb.my lora cat.clip_l": torch.ones(2, 16), "emb_params": torch.ones(2, 16)}
    file = lora.saved(tmp_path / "x.safetensors")
    with pytest.warns(Notice) as told:
        fuse([file], 1.0, "unet", unet, BOTH)
        fuse([file], 1.0, "text_encoder", text_of(model), BOTH)  # which has nothing new to say
    (line,) = [str(warning.message) for warning in told]
    assert re.fullmatch(
        r"the LoRA file .*x\.safetensors also holds .* left out: bundle_emb\.my lora .*, emb_params", line
    )
    assert_gained(unet, plain, lora.of("unet"), 1.0)


ODD = {
    "lora_unet_conv_in.lora_mid.weight": "lora_mid",
    "lora_unet_conv_norm_out.diff": "diff",
    "unet.conv_in.lora_B.bias": "bias",
    "base_model.model.conv_in.bias": "bias",
    "conv_in.oft_blocks": "oft_blocks",
    "lora_unet_conv_in.lokr_w1": "lokr_w1",
}


@pytest.mark.parametrize("name", ODD)
def test_tensors_of_another_kind_of_adapter_are_refused_by_name(name, model, tmp_path):
    unet = unet_of(model)
    lora = lora_of({"unet": (unet, ATTENTION)}, kohya)
    file = Lora(lora.tensors | {name: torch.ones(2)}, {}).saved(tmp_path / "x.safetensors")
    with pytest.raises(BadFile, match=rf"does not fit the model's unet: it holds .*another kind of adapter: {name}$"):
        fuse([file], 1.0, "unet", unet, BOTH)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("end", ["lora_down.weight", "lora_up.weight", "alpha"])
def test_a_number_that_is_none_is_refused_with_its_tensors_name(end, value, model, tmp_path):
    unet = unet_of(model)
    lora = lora_of({"unet": (unet, ATTENTION)}, kohya)
    name = [name for name in lora.tensors if name.endswith(end)][-1]
    lora.tensors[name].view(-1)[-1] = value
    with pytest.raises(BadFile, match=rf"x\.safetensors is broken: its tensor {name} holds NaN or infinite values"):
        fuse([lora.saved(tmp_path / "x.safetensors")], 1.0, "unet", unet, BOTH)


def test_a_sum_that_half_precision_cannot_hold_is_refused(model, tmp_path):
    lora = lora_of({"unet": (unet_of(model), ATTENTION)}, peft)
    settings = ModelSettings(precision="float16", lora=(lora.saved(tmp_path / "x.safetensors"),), lora_scale=1e7)
    with pytest.raises(BadFile, match=r"the model's unet: .*to_\w.*: the sum is larger than float16 can hold; lower"):
        load_prior(str(model), settings=settings)
    assert bool(next(loaded(model, *settings.lora, scale=1e7)._network.parameters()).isfinite().all())


@pytest.mark.slow
def test_a_file_without_effect_is_refused_where_it_is_untrained_and_told_where_its_alphas_say_so(model, tmp_path):
    unet, plain, file = unet_of(model), unet_of(model), tmp_path / "x.safetensors"
    lora = lora_of({"unet": (unet, ATTENTION)}, kohya)
    untrained = {name: tensor * ("lora_up" not in name) for name, tensor in lora.tensors.items()}
    with pytest.raises(BadFile, match=r"x\.safetensors changes nothing: its matrices B are all 0"):
        fuse([Lora(untrained, {}).saved(file)], 1.0, "unet", unet, BOTH)
    weak = {name: tensor * (not name.endswith("alpha")) for name, tensor in lora.tensors.items()}
    with pytest.warns(Notice, match=r"x\.safetensors changes nothing: its alphas are all 0"):
        fuse([Lora(weak, {}).saved(file)], 1.0, "unet", unet, BOTH)
    assert_gained(unet, plain, {}, 1.0)


@pytest.mark.slow
def test_a_scale_below_zero_goes_the_other_way(model, tmp_path):
    unet = unet_of(model)
    lora = lora_of({"unet": (unet, BLOCKS)}, peft)
    settings = from_dict(ModelSettings, {"lora": [str(lora.saved(tmp_path / "x.safetensors"))], "lora_scale": -1.5})
    assert_gained(load_prior(str(model), settings=settings)._network, unet, lora.of("unet"), -1.5)
    with pytest.raises(ConfigError, match=r"lora_scale = nan is not a finite number"):
        from_dict(ModelSettings, {"lora_scale": float("nan")})


@pytest.mark.slow
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("named", ["folder", "file"])
def test_a_folder_of_peft_has_the_strength_that_its_settings_say(named, rslora, model, tmp_path):
    """Against peft's own sum; patterns give some layers a rank and an alpha of their own."""
    unet = unet_of(model)
    config = LoraConfig(
        r=4, lora_alpha=12, alpha_pattern={"to_q": 2}, rank_pattern={"attn2.to_v": 2}, use_rslora=rslora,
        target_modules=["to_q", "to_k", "to_v", "conv1"],
    )  # fmt: skip
    adapted = get_peft_model(unet_of(model), config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if ".lora_" in name:
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
    adapted.save_pretrained(tmp_path)
    theirs = adapted.merge_and_unload().state_dict()
    fuse([tmp_path / "adapter_model.safetensors" if named == "file" else tmp_path], 1.0, "unet", unet, BOTH)
    changed = 0
    for name, weight in unet.state_dict().items():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=1e-6)
        changed += not torch.equal(weight, unet_of(model).state_dict()[name]) if name.endswith("to_k.weight") else 0
    assert changed == 8


def peft_file(folder: Path, unet: Any, **settings: Any) -> Path:
    """A file as of peft, of rank 3, with settings beside it that are sound but for these."""
    lora = renamed(lora_of({"unet": (unet, ("to_q",))}, peft, (3,)), ("unet.", "base_model.model."))
    (folder / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": 3} | settings))
    return lora.saved(folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 4}, r"to_q: its matrices are of rank 3, its settings say 4"),
        ({"lora_alpha": "much"}, r"to_q: lora_alpha = 'much' in its settings is no number"),
        ({"lora_alpha": float("nan")}, r"to_q: lora_alpha = None in its settings is no number"),
        ({"init_lora_weights": "pissa_niter_4"}, r"trained on weights that pissa_niter_4 had changed"),
        ({"rank_pattern": {"(": 1}}, r"does not fit the model's unet: .*missing \)"),
        ({"alpha_pattern": [1]}, r"does not fit the model's unet: "),
    ],
)
def test_settings_that_cannot_be_those_of_the_file_are_refused(settings, message, model, tmp_path):
    unet = unet_of(model)
    with pytest.raises(BadFile, match=message):
        fuse([peft_file(tmp_path, unet, **settings)], 1.0, "unet", unet, BOTH)


def test_broken_settings_and_none_at_all(model, tmp_path):
    unet, plain = unet_of(model), unet_of(model)
    file = peft_file(tmp_path, unet)
    (tmp_path / "adapter_config.json").write_text("[1]")
    with pytest.raises(BadFile, match=r"adapter_config\.json: expected a JSON object"):
        fuse([file], 1.0, "unet", unet, BOTH)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.warns(Notice, match=r"lies no adapter_config\.json of peft: alpha / rank is taken to be 1"):
        fuse([file], 1.0, "unet", unet, BOTH)
    assert_gained(unet, plain, lora_of({"unet": (plain, ("to_q",))}, peft, (3,)).of("unet"), 1.0)


def test_texts_kept_with_another_sum_are_encoded_again(model, tmp_path, monkeypatch):
    """But not those of models without such files."""
    priors = loaded(model), loaded(model, peft_file(tmp_path, unet_of(model)))
    bare, before = (prior._text_key() for prior in priors)
    monkeypatch.setattr("gsdistill.prior.families.base.SUM", -1)
    assert priors[0]._text_key() == bare
    assert priors[1]._text_key() != before


def test_settings_beside_a_file_are_part_of_the_key_of_its_texts(model, tmp_path):
    prior = loaded(model, peft_file(tmp_path, unet_of(model)))
    before = prior._text_key()
    assert prior._text_key() == before
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": 12}))
    assert prior._text_key() != before


def test_a_folder_with_two_files_or_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no file adapter_model\.safetensors or pytorch_lora_weights"):
        check_lora(tmp_path)
    for name in ("adapter_model.safetensors", "pytorch_lora_weights.safetensors"):
        save_file({"unet.x.lora_A.weight": torch.ones(1, 1)}, tmp_path / name)
    with pytest.raises(ConfigError, match=r"holds adapter_model\.safetensors and pytorch_lora_weights.*; name one of"):
        check_lora(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("another encoder", r"unet: 12 of its layers are of text_encoder_2; this model takes them for unet, text_enc"),
        ("twice", r"unet: .*proj_in and .*proj_in are the same layer of this model"),
        ("two adapters", r"unet: it has A of one layer twice: .*lora_A\.one\.weight and .*lora_A\.two\.weight"),
        ("an alpha alone", r"unet: it has 48 matrices A and 48 matrices B, and not both for conv_in"),
        ("two alphas", r"unet: .*\.alpha is of shape \[2\], where one number belongs"),
        ("a kernel", r"unet: conv_in: size mismatch, A \[2, 4, 1, 1\] and B \[8, 2, 1, 1\] for \[8, 4, 3, 3\]"),
        ("a number alone", r"unet: conv_in: size mismatch, A \[\] and B \[8, 1, 1, 1\] for \[8, 4, 3, 3\]"),
        ("no rank", r"unet: conv_in: size mismatch, A \[0, 4, 3, 3\] and B \[8, 0, 1, 1\] for"),
    ],
)
def test_a_layer_without_a_home_of_its_own_is_refused_and_nothing_is_added(damage, message, model, tmp_path):
    unet, plain = unet_of(model), unet_of(model)
    tensors = lora_of({"unet": (unet, BLOCKS)}, kohya).tensors
    if damage == "another encoder":
        parts = {"text_encoder": (text_of(model), CLIP)}
        tensors |= renamed(lora_of(parts, kohya), ("lora_te_", "lora_te2_")).tensors
    elif damage == "twice":
        tensors |= {f"diffusion_model.{name}": torch.ones(size) for name, size in MIDDLE.items()}
    elif damage == "two adapters":
        name = "unet.conv_in.lora_A.{}.weight"
        tensors |= {name.format("one"): torch.ones(2, 4, 3, 3), name.format("two"): torch.ones(2, 4, 3, 3)}
    elif damage == "an alpha alone":
        tensors["lora_unet_conv_in.alpha"] = torch.tensor(1.0)
    elif damage == "two alphas":
        tensors[next(name for name in tensors if name.endswith("alpha"))] = torch.ones(2)
    elif damage == "a number alone":
        tensors["lora_unet_conv_in.lora_down.weight"] = torch.tensor(1.0)
        tensors["lora_unet_conv_in.lora_up.weight"] = torch.ones(8, 1, 1, 1)
    else:
        rank, kernel = (2, 1) if damage == "a kernel" else (0, 3)
        tensors["lora_unet_conv_in.lora_down.weight"] = torch.ones(rank, 4, kernel, kernel)
        tensors["lora_unet_conv_in.lora_up.weight"] = torch.ones(8, rank, 1, 1)
    with pytest.raises(BadFile, match=message):
        fuse([Lora(tensors, {}).saved(tmp_path / "x.safetensors")], 1.0, "unet", unet, BOTH)
    assert_gained(unet, plain, {}, 1.0)


# Of a layer that a file also has under diffusers' name.
MIDDLE = {"middle_block.1.proj_in.lora_A.weight": (2, 16, 1, 1), "middle_block.1.proj_in.lora_B.weight": (16, 2, 1, 1)}


def test_layers_of_a_part_that_takes_none_are_refused(tmp_path):
    """Sana's text encoder is a language model; nothing reads LoRA files for it."""
    folder = importlib.import_module("tiny.sana").build(tmp_path / "sana")
    tensors = lora_of({"transformer": (loaded(folder)._network, ("to_q",))}, peft).tensors
    tensors |= {f"text_encoder.layers.0.mlp.up_proj.lora_{matrix}.weight": torch.ones(2, 2) for matrix in "AB"}
    with pytest.raises(BadFile, match=r"1 of its layers are of text_encoder; this model takes them for transformer$"):
        loaded(folder, Lora(tensors, {}).saved(tmp_path / "x.safetensors"))


def test_a_convolution_in_groups_is_refused(tmp_path):
    """B A is no weight of it: each output sees the inputs of its group alone."""
    module = torch.nn.ModuleDict({"depth": torch.nn.Conv2d(4, 4, 3, groups=4)})
    tensors = {"unet.depth.lora_A.weight": torch.ones(2, 1, 3, 3), "unet.depth.lora_B.weight": torch.ones(4, 2, 1, 1)}
    with pytest.raises(BadFile, match=r"depth is a convolution in groups, to whose weight no LoRA can be added"):
        fuse([Lora(tensors, {}).saved(tmp_path / "x.safetensors")], 1.0, "unet", module, BOTH)
