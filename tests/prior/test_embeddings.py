"""Encoded texts on disk: what is found is not encoded again; what is broken, of others or unwritable does no harm."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import sdxl, stable_diffusion
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from gsdistill.core.errors import PromptError
from gsdistill.core.structs import Embedding
from gsdistill.models.fingerprint import fingerprint
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.embeddings import encode_once
from gsdistill.prior.loading import load_prior
from gsdistill.prior.prompts import PromptSettings

PLAIN = PromptSettings("none")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/gsdistill/embeddings"


class Counting:
    """An encoder that notes what it is asked, and answers by the text's length."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: list[str]) -> list[Embedding]:
        self.asked.append(texts)
        return [Embedding(torch.full((1, 2, 3), float(len(text)))) for text in texts]


def values(found: list[Embedding]) -> list[float]:
    return [float(embedding.tokens[0, 0, 0]) for embedding in found]


def test_only_what_is_missing_is_encoded_once_and_in_order(cache):
    encode = Counting()
    assert values(encode_once("model", ["a", "bb", "a"], encode)) == [1, 2, 1]
    assert values(encode_once("model", ["ccc", "bb", "a", ""], encode)) == [3, 2, 1, 0]
    assert values(encode_once("model", ["", "a"], encode)) == [0, 1]
    assert encode.asked == [["a", "bb"], ["ccc", ""]]
    assert len(list((cache / "model").iterdir())) == 4


def test_models_do_not_share(cache):
    encode = Counting()
    for model in ("one", "other", "one"):
        encode_once(model, ["a"], encode)
    assert encode.asked == [["a"], ["a"]] and {path.name for path in cache.iterdir()} == {"one", "other"}


def test_every_bit_comes_back():
    generator = torch.Generator().manual_seed(0)
    tokens, pooled = torch.randn(2, 1, 5, 4, generator=generator).transpose(2, 3)
    whole = Embedding(tokens, pooled[:, 0].half(), torch.tensor([[True, False, True, True]]))
    bare = Embedding(torch.tensor([[[float("inf"), -0.0]]]))
    kept = {"a": whole, "ü, 猫 🐈": bare}
    for _ in range(2):
        found = encode_once("model", list(kept), lambda texts: [kept[text] for text in texts])
        assert found[0].pooled is not None and found[0].mask is not None
        assert torch.equal(found[0].tokens, whole.tokens) and torch.equal(found[0].mask, whole.mask)
        assert torch.equal(found[0].pooled, whole.pooled) and found[0].pooled.dtype == torch.float16
        assert torch.equal(found[1].tokens, bare.tokens) and found[1].pooled is found[1].mask is None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_bytes(path: Path) -> None:
    path.write_bytes(b"\xff" * 200)


def of_another_text(path: Path) -> None:
    """As if two texts had one name."""
    encode_once("model", ["another"], Counting())
    (other,) = [file for file in path.parent.iterdir() if file != path]
    other.replace(path)


def without_tokens(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"pooled": torch.zeros(1, 2)}, path, {"key": "a"})


@pytest.mark.parametrize("damage", [cut, empty, other_bytes, of_another_text, without_tokens])
def test_a_broken_file_is_made_again(damage: Callable[[Path], None], cache):
    encode_once("model", ["a"], Counting())
    (path,) = (cache / "model").iterdir()
    sound = path.read_bytes()
    damage(path)
    assert path.read_bytes() != sound
    encode = Counting()
    for _ in range(2):
        assert values(encode_once("model", ["a"], encode)) == [1]
    assert encode.asked == [["a"]] and path.read_bytes() == sound


def test_a_cache_that_cannot_be_written_is_done_without(cache):
    """A file stands where a folder would; that holds for any user."""
    cache.parent.mkdir(parents=True)
    cache.write_text("in the way")
    encode = Counting()
    for _ in range(2):
        assert values(encode_once("model", ["a", "bb"], encode)) == [1, 2]
    assert len(encode.asked) == 2 and cache.read_text() == "in the way"


def test_an_account_without_a_home_has_no_cache(monkeypatch):
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert values(encode_once("model", ["a", "bb", "a"], Counting())) == [1, 2, 1]


def test_an_error_of_the_encoder_leaves_nothing(cache):
    def fails(texts: list[str]) -> list[Embedding]:
        raise PromptError(texts[0])

    with pytest.raises(PromptError):
        encode_once("model", ["a"], fails)
    assert not cache.exists()


def test_a_fingerprint_changes_with_files_and_facts(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        path.write_text("text")
        os.utime(path, ns=(0, 0))
    plain = fingerprint([one, other], "float32", 1.0)
    assert plain == fingerprint([other, one], "float32", 1.0) and len(plain) == 32
    different = {plain, fingerprint([one], "float32", 1.0), fingerprint([one, other], "float16", 1.0)}
    different.add(fingerprint([one, other], "float32", 0.5))
    one.write_text("texts")
    os.utime(one, ns=(0, 0))
    different.add(fingerprint([one, other], "float32", 1.0))
    one.write_text("text")
    os.utime(one, ns=(0, 1))
    different.add(fingerprint([one, other], "float32", 1.0))
    assert len(different) == 6
    link = tmp_path / "link"
    link.symlink_to(one)
    assert fingerprint([link]) == fingerprint([one])  # as in the hub's cache


@pytest.fixture(scope="module", params=[stable_diffusion, sdxl])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return request.param.build(tmp_path_factory.mktemp("model"))


class Loaded(BaseException):
    """A text encoder or a tokenizer is loaded; no error of a library, which would be one about the file."""


@pytest.fixture
def no_encoder(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on no text encoder and no tokenizer can be loaded."""

    def refuse(*_args: Any, **_options: Any) -> None:
        raise Loaded

    def forbid() -> None:
        for kind in (CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer):
            monkeypatch.setattr(kind, "from_pretrained", refuse)

    return forbid


def test_known_texts_need_no_encoder_in_any_run(model, no_encoder):
    settings = PromptSettings("perp-neg")
    before = load_prior(str(model)).encode_text("a cat", "blur", settings)
    no_encoder()
    prior = load_prior(str(model))
    after = prior.encode_text("a cat", "blur", settings)
    assert torch.equal(before.positive.tokens, after.positive.tokens)
    assert before.views.keys() == after.views.keys()
    assert all(torch.equal(before.views[name].tokens, after.views[name].tokens) for name in before.views)
    prior.encode_text("a cat", "blur", PLAIN)
    with pytest.raises(Loaded):
        prior.encode_text("a dog", "blur", PLAIN)


@pytest.mark.parametrize("part", ["text_encoder/config.json", "tokenizer/tokenizer_config.json", "model_index.json"])
def test_a_changed_model_is_asked_again(part, model, no_encoder, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    load_prior(str(folder)).encode_text("a cat", "", PLAIN)
    (folder / part).write_text((folder / part).read_text() + "\n")
    no_encoder()
    with pytest.raises(Loaded):
        load_prior(str(folder)).encode_text("a cat", "", PLAIN)


def test_the_network_and_the_autoencoder_play_no_part(model, no_encoder, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    load_prior(str(folder)).encode_text("a cat", "", PLAIN)
    for part in ("unet", "vae"):
        (folder / part / "config.json").touch()
    no_encoder()
    load_prior(str(folder)).encode_text("a cat", "", PLAIN)


def test_another_precision_is_another_model(model, no_encoder):
    load_prior(str(model)).encode_text("a cat", "", PLAIN)
    no_encoder()
    with pytest.raises(Loaded):
        load_prior(str(model), settings=ModelSettings(precision="bfloat16")).encode_text("a cat", "", PLAIN)


def test_bytes_that_are_no_text_are_refused_in_a_sentence(model):
    with pytest.raises(PromptError, match=r"the prompt 'a cat \\udcff' is not valid Unicode"):
        load_prior(str(model)).encode_text("a cat \udcff", "", PLAIN)


def test_a_full_disk_is_no_error(cache, monkeypatch):
    """What the library raises then is not an OSError."""
    from safetensors import SafetensorError

    def full(*arguments):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    encode = Counting()
    for _ in range(2):
        assert values(encode_once("model", ["a"], encode)) == [1]
    assert encode.asked == [["a"], ["a"]] and not [path for path in cache.rglob("*") if path.is_file()]
