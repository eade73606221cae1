"""Models from the hub: what is downloaded, what is not asked twice, mirrors, and each failure in one sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fakehub import FakeHub, HubServer, forbid_network
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tiny import stable_diffusion

from gsdistill.core.errors import BadFile, ConfigError, ModelNotFound
from gsdistill.models import catalogue
from gsdistill.models.hub import (
    Need,
    cached_file,
    cached_snapshot,
    fetch,
    fetch_file,
    fetch_index,
    go_offline,
    is_offline,
    list_remote_files,
)
from gsdistill.models.pipelines import needed_parts
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.loading import load_prior
from gsdistill.prior.prompts import PromptSettings
from gsdistill.scene.viewpoints import orbit

FULL, HALF = Need(needed_parts), Need(needed_parts, half=True)
WHATEVER = (".safetensors", ".bin", ".ckpt", ".onnx")
WEIGHTS = ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model with both variants, whose fp16 values are half the others, and much that no prior needs."""
    folder = stable_diffusion.build(tmp_path_factory.mktemp("hub-sd"))
    for name in WEIGHTS:
        values = load_file(folder / f"{name}.safetensors")
        save_file({key: 0.5 * value.half() for key, value in values.items()}, folder / f"{name}.fp16.safetensors")
    for name in ("unet/diffusion_pytorch_model.bin", "safety_checker/model.safetensors", "v1.ckpt", "unet/model.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"never read")
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    return FakeHub(monkeypatch, tmp_path / "cache")


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("need", "kind"), [(FULL, ""), (HALF, ".fp16")])
def test_only_what_the_family_needs_is_downloaded_and_once(need, kind, hub, model):
    hub.folders["a/model"] = model
    folder = fetch("a/model", ["a/model"], need)
    names = {name for name in hub.kept("a/model") if name.endswith(".safetensors")}
    assert names == {f"{name}{kind}.safetensors" for name in WEIGHTS}
    assert not any(name.endswith((".bin", ".ckpt", ".onnx")) for name in hub.kept("a/model"))
    assert {"model_index.json", "tokenizer/tokenizer.json", "scheduler/scheduler_config.json"} <= hub.kept("a/model")
    hub.asked.clear()
    assert fetch("a/model", ["a/model"], need) == folder and not hub.asked
    # either variant serves once it is there
    assert fetch("a/model", ["a/model"], FULL) == folder and not hub.asked


def test_configs_alone(hub, model):
    hub.folders["a/model"] = model
    fetch("a/model", ["a/model"], Need(needed_parts, weights=False))
    assert not any(name.endswith(".safetensors") for name in hub.kept("a/model"))
    assert cached_snapshot("a/model", Need(needed_parts, weights=False)) and not cached_snapshot("a/model", FULL)
    fetch("a/model", ["a/model"], FULL)  # what is there does not count as all
    assert cached_snapshot("a/model", FULL)


def test_a_part_that_another_one_replaces_is_not_downloaded(hub, model):
    hub.folders["a/model"] = model
    fetch("a/model", ["a/model"], Need(lambda folder: needed_parts(folder, own_vae=False)))
    assert not any(name.startswith("vae") for name in hub.kept("a/model"))


def test_a_cached_mirror_goes_before_a_download(hub, model):
    hub.folders["second/model"] = model
    fetch("x", ["second/model"], FULL)
    hub.folders["first/model"] = model
    hub.asked.clear()
    assert fetch("x", ["first/model", "second/model"], FULL) == hub.place("second/model") and not hub.asked


def test_mirrors_are_tried_in_order(hub, model):
    hub.folders["third/model"] = model
    assert fetch("x", ["first/model", "second/model", "third/model"], FULL) == hub.place("third/model")
    assert [question for question in hub.asked if question.startswith("list")] == [
        "list first/model", "list second/model", "list third/model",
    ]  # fmt: skip


def test_when_all_mirrors_fail_the_sentence_says_what_was_tried_and_why(hub, model):
    with pytest.raises(ModelNotFound) as error:
        fetch("x", ["first/model", "second/model"], FULL, advice="; do this")
    assert one_line(error) == (
        "cannot get x (tried first/model, second/model): there is no such model on the hub, or it is private "
        "(`hf auth login`); do this"
    )
    hub.folders["second/model"] = model
    hub.gated.add("second/model")
    with pytest.raises(ModelNotFound) as error:
        fetch("x", ["first/model", "second/model"], FULL)
    assert one_line(error) == (
        "cannot get x: first/model: there is no such model on the hub, or it is private (`hf auth login`); "
        f"second/model: it is gated: accept its licence at {constants.ENDPOINT}/second/model, then run `hf auth login`"
    )


def test_without_a_network_one_mirror_is_asked_and_all_are_named(hub):
    hub.down = True
    with pytest.raises(ModelNotFound) as error:
        fetch("x", ["first/model", "second/model"], FULL)
    assert one_line(error) == (
        "cannot get x (tried first/model, second/model): the hub cannot be reached (Name or service not known)"
    )
    assert hub.asked == ["list first/model"]


def test_offline_nothing_is_asked_and_the_sentence_says_so(hub, model):
    go_offline()
    assert is_offline() and os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(ModelNotFound) as error:
        fetch("a/model", ["a/model"], FULL)
    assert one_line(error) == (
        f"cannot get a/model: it is not in the cache {hub.cache}, and HF_HUB_OFFLINE or --offline forbids to ask the "
        "hub"
    )
    constants.HF_HUB_OFFLINE = False
    hub.folders["a/model"] = model
    fetch("a/model", ["a/model"], FULL)
    (hub.place("a/model") / "vae/diffusion_pytorch_model.safetensors").unlink()
    hub.asked.clear()
    go_offline()
    with pytest.raises(ModelNotFound, match=r"it is in the cache, but the weights .*/vae/\*.safetensors are missing"):
        fetch("a/model", ["a/model"], FULL)
    with pytest.raises(ModelNotFound, match="not in the cache"):
        fetch_file("m", ["b/model"], "one.pt")
    assert not hub.asked


def test_without_a_home_folder_no_model_is_looked_for_or_kept_below_the_working_directory(
    hub, model, monkeypatch, tmp_path
):
    """What the library makes of ``~/.cache`` then; somebody else may have put a model there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")
    hub.cache = tmp_path / "~/.cache/huggingface/hub"
    hub.folders["a/model"] = model
    hub.snapshot("a/model", allow_patterns=["*"])
    assert cached_file("a/model", "model_index.json") is None
    hub.asked.clear()
    with pytest.raises(ModelNotFound) as error:
        fetch("a/model", ["a/model"], FULL)
    assert one_line(error) == ("cannot get a/model: there is no home folder to keep models in; set HF_HOME to a folder")
    assert not hub.asked


def test_go_offline_holds_for_a_process_that_imports_the_library_later():
    program = (
        "import sys; from gsdistill.models.hub import go_offline;"
        "assert 'huggingface_hub.constants' not in sys.modules;"
        "go_offline(); from gsdistill.models.hub import is_offline; assert is_offline();"
        "from huggingface_hub import constants; assert constants.HF_HUB_OFFLINE"
    )
    free = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    subprocess.run([sys.executable, "-c", program], check=True, env=free)


def test_a_revision_is_kept_apart_and_an_unknown_one_is_told(hub, model):
    hub.folders["a/model"] = model
    assert fetch("a/model", ["a/model"], FULL, "v2") == hub.place("a/model", "v2")
    assert cached_snapshot("a/model", FULL, "v2") and not cached_snapshot("a/model", FULL)
    with pytest.raises(ModelNotFound, match="cannot get a/model: it has no revision 'v3'"):
        fetch("a/model", ["a/model"], FULL, "v3")


def test_a_full_disk_ends_the_search(hub, model):
    hub.folders |= {"a/model": model, "b/model": model}
    hub.full = True
    with pytest.raises(ModelNotFound, match=r"it cannot be kept in .*cache: \[Errno 28\] No space left on device"):
        fetch("x", ["a/model", "b/model"], FULL)
    assert "list b/model" not in hub.asked


def test_pickled_weights_on_the_hub_are_refused_before_the_download(hub, model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "pickled")
    for path in folder.glob("unet/*.safetensors"):
        path.unlink()
    hub.folders["a/model"] = folder
    with pytest.raises(ModelNotFound, match=r"the weights a/model/unet/\*.safetensors are missing; .*is a pickle"):
        fetch("a/model", ["a/model"], FULL)
    assert hub.kept("a/model") == {"model_index.json"}


def test_a_family_that_is_no_prior_is_told_before_the_download(hub, model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "flux")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    hub.folders["a/model"] = folder
    with pytest.raises(BadFile, match=r"FluxPipeline is of no family that can be a prior; known: StableDiffusionPipe"):
        fetch("a/model", ["a/model"], FULL)
    assert hub.kept("a/model") == {"model_index.json"}


def test_one_file(hub, tmp_path):
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository/one.pt").write_bytes(b"1")
    hub.folders["a/model"] = tmp_path / "repository"
    assert fetch_file("m", ["gone/model", "a/model"], "one.pt").read_bytes() == b"1"
    hub.asked.clear()
    fetch_file("m", ["gone/model", "a/model"], "one.pt")
    assert not hub.asked
    with pytest.raises(ModelNotFound, match=r"cannot get m: .*a/model: it has no two.pt"):
        fetch_file("m", ["gone/model", "a/model"], "two.pt")


def test_the_hub_is_asked_for_names_and_sizes(hub, model):
    hub.folders["a/model"] = model
    files = list_remote_files("a/model")
    assert files["unet/config.json"] == (model / "unet/config.json").stat().st_size and "v1.ckpt" in files
    assert needed_parts(fetch_index("a/model")) == ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    assert hub.kept("a/model") == {"model_index.json"}
    with pytest.raises(ModelNotFound, match=r"^there is no such model on the hub"):
        list_remote_files("b/model")
    with pytest.raises(ModelNotFound, match=r"^there is no such model on the hub"):
        fetch_index("b/model")


@pytest.mark.parametrize("name", ["no such", "a--b/c..d"])
def test_what_the_library_calls_no_name_is_told(name, hub, monkeypatch):
    def refuse(*given: object, **options: object) -> None:
        from huggingface_hub.errors import HFValidationError

        raise HFValidationError("Cannot have -- or .. in repo_id")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *given, **options: None)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    with pytest.raises(ModelNotFound, match=f"cannot get {name}: the hub knows no such names: Cannot have --"):
        fetch(name, [name], FULL)


# Whole priors


def noise_of(prior) -> torch.Tensor:
    condition = prior.condition(prior.encode_text("red", "", PromptSettings("none")), orbit(1, 16))
    x = torch.randn(1, *prior.latent_shape, generator=torch.Generator().manual_seed(0))
    return prior.noise(x, torch.tensor([500]), condition).conditional.float()


def test_a_folder_a_cached_model_and_the_shipped_one_ask_no_network(hub, model, monkeypatch):
    hub.folders["a/model"] = model
    load_prior("a/model")
    tried = forbid_network(monkeypatch)
    hub.down = True
    expected = noise_of(load_prior(str(model)))
    torch.testing.assert_close(noise_of(load_prior("a/model")), expected)
    load_prior("shapes").encode_text("a red cube", "")
    go_offline()
    torch.testing.assert_close(noise_of(load_prior("a/model")), expected)
    with pytest.raises(ModelNotFound, match="not in the cache"):
        load_prior("sd15")
    assert not tried


def test_the_guard_sees_a_real_question(monkeypatch):
    """Without a fake hub the same model is asked for over the network: the test above can fail."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    tried = forbid_network(monkeypatch)
    with pytest.raises((ModelNotFound, AssertionError)):
        load_prior("a-name/of-no-model")
    assert tried


def test_precision_decides_which_files_are_fetched_and_loaded(hub, model, monkeypatch):
    hub.folders |= {"a/model": model, "b/model": model}
    light = load_prior("a/model", settings=ModelSettings(precision="float16"))
    weight = next(light._network.parameters())
    full = next(load_prior("b/model")._network.parameters())
    assert (weight.dtype, full.dtype) == (torch.float16, torch.float32)
    assert not any("fp16" in name for name in hub.kept("b/model"))
    torch.testing.assert_close(weight, 0.5 * full.half())
    # the files of half precision serve in full precision where they are what is there
    torch.testing.assert_close(next(load_prior("a/model")._network.parameters()), weight.float())
    both = load_prior(str(model), settings=ModelSettings(precision="bfloat16"))
    torch.testing.assert_close(next(both._network.parameters()), weight.bfloat16())


@pytest.mark.parametrize("kind", ["bf16", "non_ema"])
def test_weights_that_are_there_in_one_other_variant_alone_serve(kind, hub, model, tmp_path):
    folder = Path(shutil.copytree(model, tmp_path / "varied"))
    for name in WEIGHTS:
        (folder / f"{name}.fp16.safetensors").unlink()
        (folder / f"{name}.safetensors").rename(folder / f"{name}.{kind}.safetensors")
    hub.folders["a/model"] = folder
    expected = load_prior(str(model))._network.state_dict()
    for place in (str(folder), "a/model"):
        held = load_prior(place)._network.state_dict()
        assert all(torch.equal(held[name], value) for name, value in expected.items())
    assert {f"{name}.{kind}.safetensors" for name in WEIGHTS} <= hub.kept("a/model")
    shutil.copy(folder / f"{WEIGHTS[0]}.{kind}.safetensors", folder / f"{WEIGHTS[0]}.ema.safetensors")
    with pytest.raises(ModelNotFound, match=r"unet/\*.safetensors are missing: there are .* keep the one") as error:
        load_prior(str(folder))
    assert kind in one_line(error) and "model.ema.safetensors" in one_line(error)


def test_names_of_mirrors_are_told_to_who_names_one(hub):
    card = catalogue.cards()["sd21-base"]
    with pytest.raises(ModelNotFound) as error:
        load_prior("stabilityai/stable-diffusion-2-1-base")
    others = ", ".join(source for source in card.sources if not source.startswith("stabilityai"))
    assert one_line(error).endswith(f"(`hf auth login`); --prior sd21-base also tries {others}")
    with pytest.raises(ModelNotFound) as error:
        load_prior("sd21-base")
    assert one_line(error).startswith(f"cannot get sd21-base (tried {', '.join(card.sources)}): there is no such model")
    assert one_line(error).endswith("; or name another hub id or a diffusers folder with --prior")


def test_a_card_is_served_by_any_of_its_mirrors(hub, model):
    source = catalogue.cards()["sd21-base"].sources[1]
    hub.folders[source] = model
    assert catalogue.cached_source("sd21-base") is None
    assert load_prior("sd21-base").name == "sd21-base"
    assert catalogue.cached_source("sd21-base") == source
    assert catalogue.choose_prior("auto", torch.device("meta"))[0] == "sd21-base"
    assert catalogue.cached_source("shapes") is None


@pytest.mark.slow
def test_the_real_library_and_a_server(model, tmp_path):
    """The same against huggingface_hub itself: downloads, a cache that asks no more, and its own errors."""
    program = (
        "import sys; from gsdistill.core.errors import UserError; from gsdistill.models.hub import Need, fetch\n"
        "need = Need(lambda folder: ('unet', 'vae', 'text_encoder', 'tokenizer', 'scheduler'))\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(fetch(name, [name], need))\n"
        "    except UserError as error: print(f'{type(error).__name__}: {error}')\n"
    )
    server = HubServer({"a/model": model, "b/model": model}, gated=["b/model"])
    free = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own = {**free, **server.environment, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}

    def said(*names: str, **more: str) -> list[str]:
        command = [sys.executable, "-c", program, *names]
        done = subprocess.run(command, env={**own, **more}, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    assert "not in the cache" in said("a/model", HF_HUB_OFFLINE="1")[0] and not server.asked
    folder, gone, gated = said("a/model", "c/model", "b/model")
    fetched_names = {line.partition("/main/")[2] or line.partition(f"{'c' * 40}/")[2] for line in server.asked}
    assert {name for name in fetched_names if name.endswith(WHATEVER)} == {f"{name}.safetensors" for name in WEIGHTS}
    torch.testing.assert_close(noise_of(load_prior(folder)), noise_of(load_prior(str(model))))
    assert gone.startswith("ModelNotFound: cannot get c/model: there is no such model on the hub, or it is private")
    assert f"it is gated: accept its licence at {own['HF_ENDPOINT']}/b/model, then run `hf auth login`" in gated
    server.shutdown()
    server.server_close()
    again, gone = said("a/model", "c/model")
    assert again == folder and gone.startswith("ModelNotFound: cannot get c/model: the hub cannot be reached (")
    assert said("a/model", HF_HUB_OFFLINE="1") == [folder]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ModelSettings(revision="v2"), r"model.revision = 'v2' is of the hub, and .* is on this machine"),
        (ModelSettings(config="sd15"), r"model.config = 'sd15' is for checkpoints in one file, and .* is none"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message, model):
    with pytest.raises(ConfigError, match=message):
        load_prior(str(model), settings=settings)


def test_a_name_that_leads_nowhere():
    with pytest.raises(ConfigError, match=r"prior = 'models/x.safetensors' is neither a known prior nor a folder or"):
        load_prior("models/x.safetensors")


@pytest.mark.parametrize("name", ["a/b--c", "a/b.git", "a/" + "b" * 120])
def test_names_that_the_hub_cannot_have_are_one_line(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(ModelNotFound, match="cannot get") as caught:
        load_prior(name)
    assert "\n" not in str(caught.value)
