"""Sampling a loaded model, and every way in which loading can fail: one sentence that says what to do."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import socket
import urllib.error
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gsdistill.core.errors import BadFile, ModelNotFound, PromptError, UserError
from gsdistill.point_e import model as module
from gsdistill.point_e import weights
from gsdistill.point_e.card import OPENAI, read_card
from gsdistill.point_e.model import PointE, load_point_e
from gsdistill.point_e.sampler import cumulative_alphas, denoiser, sample
from gsdistill.point_e.transformer import Size

CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def message(kind: type[UserError], source: Path | str) -> str:
    with pytest.raises(kind) as caught:
        load_point_e(str(source))
    text = str(caught.value)
    assert "\n" not in text and 20 < len(text) < 420
    return text


def test_the_defaults_are_the_published_settings():
    assert OPENAI.base.size == OPENAI.upsampler.size == Size(512, 12, 8, 12)
    assert (OPENAI.base.points, OPENAI.upsampler.points) == (1024, 3072)
    assert asdict(OPENAI.base.sampling) == {
        "steps": 64, "sigma_min": 1e-3, "sigma_max": 120.0, "s_churn": 3.0, "guidance_scale": 3.0,
    }  # fmt: skip
    assert asdict(OPENAI.upsampler.sampling) == {
        "steps": 64, "sigma_min": 1e-3, "sigma_max": 160.0, "s_churn": 0.0, "guidance_scale": 0.0,
    }  # fmt: skip
    assert (OPENAI.base.schedule, OPENAI.upsampler.schedule) == ("cosine", "linear")


def test_a_cloud_is_a_function_of_prompt_generator_and_settings(own):
    model = load_point_e(str(own))
    first, again = (model.sample("a red cube", seeded()) for _ in range(2))
    assert first.points.shape == first.colors.shape == (23, 3)
    assert first.points.dtype == first.colors.dtype == torch.float32
    assert float(first.colors.min()) >= 0.0 and float(first.colors.max()) <= 1.0
    assert bool((first.points == again.points).all()) and bool((first.colors == again.colors).all())
    for other in (
        model.sample("a red cube", seeded(1)),
        model.sample("a blue ring", seeded()),
        model.sample("a red cube", seeded(), guidance_scale=5.0),
        model.sample("a red cube", seeded(), steps=4),
    ):
        assert float((other.points - first.points).abs().max()) > 1e-6
    same = model.sample("A  red cube!", seeded(), guidance_scale=2.0, steps=3)
    assert bool((same.points == first.points).all())


def test_the_cloud_is_the_sampled_one_in_world_units(made):
    """The two stages again, from their parts: coarse points first, given to the upsampler in values."""
    folder = made / "own"
    model, card, draws = load_point_e(str(folder)), read_card(folder / "config.json"), seeded(3)
    text = model._encode("a red cube")
    assert float(text.norm()) == pytest.approx(1.0, abs=1e-6)
    alphas = cumulative_alphas("cosine", 64)
    told = denoiser(lambda x, t: model._base(x, t, text), alphas)
    untold = denoiser(lambda x, t: model._base(x, t, 0.0 * text), alphas)

    def mixed(x, sigma):
        return untold(x, sigma) + 2.0 * (told(x, sigma) - untold(x, sigma))

    with torch.no_grad():
        coarse = sample(mixed, (1, 6, 9), card.base.sampling, draws, CPU)
        values = torch.cat([coarse[:, :3] / 2.0, (coarse[:, 3:] + 1.0) * 127.5], 1)
        linear = cumulative_alphas("linear", 64)
        fine = denoiser(lambda x, t: model._upsampler(x, t, values), linear)
        further = sample(fine, (1, 6, 14), card.upsampler.sampling, draws, CPU)
    x = torch.cat([coarse, further], 2)[0].T
    cloud = model.sample("a red cube", seeded(3))
    torch.testing.assert_close(cloud.points, x[:, :3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cloud.colors, ((x[:, 3:] + 1.0) / 2.0).clamp(0, 1), rtol=1e-4, atol=1e-5)


def test_a_published_folder_gives_the_same_cloud_turned_to_our_front(made, published):
    ours, theirs = (load_point_e(str(f)).sample("a red cube", seeded(3)) for f in (made / "own", published))
    turned = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # -y becomes +x
    torch.testing.assert_close(turned.T @ torch.tensor([0.0, -1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(theirs.points, ours.points @ turned)
    torch.testing.assert_close(theirs.colors, ours.colors)


def test_the_fingerprint_is_of_the_files(made, own):
    first = load_point_e(str(own)).fingerprint
    assert load_point_e(str(own)).fingerprint == first
    changed = load_file(own / "base.safetensors")
    changed["output_proj.bias"] += 1.0
    save_file(changed, own / "base.safetensors")
    assert len({first, load_point_e(str(own)).fingerprint, load_point_e(str(made / "own")).fingerprint}) == 3


def test_prompts_outside_of_the_world_or_too_long_are_refused(own, published):
    with pytest.raises(PromptError, match="'corgi'"):
        load_point_e(str(own)).sample("a corgi", seeded())
    with pytest.raises(PromptError, match=r"has 42 tokens, Point-E reads 24 at most"):
        load_point_e(str(published)).sample("red " * 40, seeded())


def test_an_unknown_name_is_met_with_the_nearest(tmp_path):
    assert "Did you mean 'shapes'? Known: shapes, openai, or a folder" in message(ModelNotFound, "shape")
    assert "neither config.json nor base_40m_textvec.pt and upsample_40m.pt" in message(ModelNotFound, tmp_path)


@pytest.mark.parametrize("part", ["base.safetensors", "upsampler.safetensors"])
def test_weights_that_are_missing_cut_or_of_another_model_are_named(own, part):
    file = own / part
    whole, tensors = file.read_bytes(), load_file(file)
    file.unlink()
    assert f"{file} are missing" in message(ModelNotFound, own)
    file.write_bytes(whole[: len(whole) // 2])
    assert f"{file} is cut or damaged" in message(BadFile, own)
    save_file({**tensors, "extra": torch.zeros(1)}, file)
    assert "has an unknown 'extra'" in message(BadFile, own)
    save_file({k: v for k, v in tensors.items() if k not in ("ln_pre.bias", "ln_post.bias")}, file)
    assert "lacks 'ln_pre.bias' and 1 more" in message(BadFile, own)
    save_file({**tensors, "input_proj.bias": torch.zeros(9)}, file)
    assert "'input_proj.bias' is [9], not [8]" in message(BadFile, own)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": 1}, "'colour'"),
        ({"world": "moon"}, "'moon'"),
        ({"base": {"points": 0}}, "points"),
        ({"upsampler": {"sampling": {"guidance_scale": 3.0}}}, "no guidance"),
    ],
)
def test_a_wrong_config_is_named(own, change, words):
    path = own / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    text = message(BadFile, own)
    assert words in text and str(path) in text


@pytest.mark.parametrize(("text", "words"), [("{", "JSON"), ("[1]", "JSON object")])
def test_a_config_that_is_no_json_object_is_named(own, text, words):
    (own / "config.json").write_text(text)
    assert words in message(BadFile, own)


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/never",)


def test_a_pickle_that_wants_more_than_tensors_is_refused(published):
    file = published / module.BASE_FILE
    torch.save({"a": Evil()}, file)
    assert f"{file} is a pickle of more than tensors" in message(BadFile, published)
    torch.save({"a": {"b": torch.zeros(1)}}, file)
    assert "is not a state dict" in message(BadFile, published)


@pytest.mark.parametrize("spoil", [lambda b: b[:2000], lambda b: b"", lambda b: b"<html>", lambda b: pickle.dumps([1])])
def test_a_broken_pickle_is_named(published, spoil):
    file = published / module.UPSAMPLER_FILE
    file.write_bytes(spoil(file.read_bytes()))
    assert str(file) in message(BadFile, published)


def test_one_published_file_without_the_other_is_named(published):
    (published / module.UPSAMPLER_FILE).unlink()
    assert module.UPSAMPLER_FILE in message(ModelNotFound, published)


def test_a_text_encoder_that_does_not_fit_is_named(own):
    config = own / "text_encoder" / "config.json"
    plain = json.loads(config.read_text())
    file = own / "text_encoder" / "model.safetensors"
    whole = load_file(file)
    save_file({k: v for k, v in whole.items() if "text_projection" not in k}, file, {"format": "pt"})
    assert "lacks 'text_projection.weight'" in message(BadFile, own)
    save_file({**whole, "text_projection.weight": whole["text_projection.weight"] / 0}, file, {"format": "pt"})
    assert "hold NaN or infinity, such as text_projection.weight" in message(BadFile, own)
    save_file({**whole, "text_projection.weight": torch.zeros(5, 8)}, file, {"format": "pt"})
    config.write_text(json.dumps({**plain, "projection_dim": 5}))
    assert "makes 5 numbers, where the base model reads 6" in message(BadFile, own)
    file.write_bytes(file.read_bytes()[:300])
    assert "cannot load the text encoder" in message(ModelNotFound, own)
    config.unlink()
    assert "cannot load the text encoder" in message(ModelNotFound, own)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")], ids=["python", "torch"]
)
def test_no_memory_for_the_text_encoder_is_told_as_such(error, own, monkeypatch):
    from transformers import CLIPTextModelWithProjection

    def short(*args: object, **options: object) -> None:
        raise error

    model = load_point_e(str(own))
    monkeypatch.setattr(CLIPTextModelWithProjection, "forward", short)
    with pytest.raises(type(error)) as caught:
        model.sample("a red cube", seeded())
    assert caught.value is error
    monkeypatch.setattr(CLIPTextModelWithProjection, "from_pretrained", short)
    with pytest.raises(type(error)) as caught:
        load_point_e(str(own))
    assert caught.value is error


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return tmp_path / "cache" / "gsdistill" / "point-e"


@pytest.fixture
def offline(cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_offline_nothing_is_fetched(cache, offline, monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    text = message(ModelNotFound, "openai")
    assert (
        "HF_HUB_OFFLINE or --offline forbids fetching them" in text and str(cache) in text and weights.ADDRESS in text
    )


def test_a_failed_fetch_says_what_to_do(cache, monkeypatch):
    def refuse(address: str, timeout: float):
        raise urllib.error.URLError(OSError("Name or service not known"))

    monkeypatch.setattr(weights.urllib.request, "urlopen", refuse)
    assert "(Name or service not known): put the file https://" in message(ModelNotFound, "openai")
    assert not cache.exists()


class Response(io.BytesIO):
    def __init__(self, data: bytes, length: int):
        super().__init__(data)
        self.headers = {"Content-Length": str(length)}


class Broken(Response):
    def read(self, size: int | None = -1) -> bytes:
        raise ConnectionResetError("reset by peer")


@pytest.mark.parametrize(
    ("response", "words"),
    [(Response(b"half", 8), "ended after 4 of 8 bytes: try again"), (Broken(b"", 8), "broke off (reset by peer)")],
)
def test_half_a_download_is_not_kept(cache, monkeypatch, response, words):
    monkeypatch.setattr(weights.urllib.request, "urlopen", lambda address, timeout: response)
    assert words in message(ModelNotFound, "openai")
    assert list(cache.iterdir()) == []


def test_the_published_files_are_fetched_once(cache, published, monkeypatch):
    monkeypatch.setattr(weights, "ADDRESS", published.as_uri() + "/")
    monkeypatch.setattr(module, "TextEncoder", lambda folder, width, device: lambda prompt: torch.ones(1, 6))
    first = load_point_e("openai")
    assert sorted(file.name for file in cache.iterdir()) == [module.BASE_FILE, module.UPSAMPLER_FILE]
    monkeypatch.setattr(weights.urllib.request, "urlopen", None)
    again = load_point_e("openai")
    assert isinstance(again, PointE) and again.fingerprint == first.fingerprint
    assert math.isfinite(float(again.sample("anything at all", seeded()).points.sum()))


def test_without_clip_the_hub_is_named(published, offline):
    import shutil

    shutil.rmtree(published / "text_encoder")
    assert "cannot load the text encoder openai/clip-vit-large-patch14" in message(ModelNotFound, published)
