"""``doctor --prior``: what a model takes, what of it is here and what gets the rest; never a failure of the network."""

from __future__ import annotations

import platform
import shlex
import shutil
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import numba
import pytest
import torch
from fakehub import FakeHub, forbid_network
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tiny import stable_diffusion

from gsdistill.cli.main import execute
from gsdistill.core.errors import ConfigError
from gsdistill.doctor import machine, selftest
from gsdistill.doctor.machine import Finding
from gsdistill.doctor.model import prior_findings
from gsdistill.models import inventory
from gsdistill.models.catalogue import cards
from gsdistill.models.hub import go_offline
from gsdistill.models.inventory import gigabytes
from gsdistill.prior.loading import load_prior
from gsdistill.renderer._bins import place

WEIGHTS = ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = stable_diffusion.build(tmp_path_factory.mktemp("doctor-sd"))
    for name in WEIGHTS:
        values = load_file(folder / f"{name}.safetensors")
        save_file({key: value.half() for key, value in values.items()}, folder / f"{name}.fp16.safetensors")
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"never read")
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    return FakeHub(monkeypatch, tmp_path / "cache")


def told(name: str) -> dict[str, Finding]:
    """The findings by name; of several of one name the last."""
    return {finding.name: finding for finding in prior_findings(name)}


@pytest.mark.parametrize("half", [False, True])
def test_the_files_of_a_model_of_the_hub_and_the_command_that_gets_them(half, hub, model, monkeypatch, tmp_path):
    card = cards()["sd21-base"]
    hub.folders[card.sources[1]] = model
    monkeypatch.setattr("gsdistill.core.device.choose", lambda name: torch.device("meta" if half else "cpu"))
    found = told("sd21-base")
    assert found["licence"].found == card.licence and found["what"].found == card.summary
    assert (found["source"].found or "").startswith(f"{card.sources[1]} (else {card.sources[0]},")
    assert found["cached"].found is None
    words = shlex.split(found["cached"].cure)
    assert words[:3] == ["hf", "download", card.sources[1]]
    kind = ".fp16" if half else ""
    assert {name for name in words[3:] if "model." in name} == {f"{name}{kind}.safetensors" for name in WEIGHTS}
    size = sum((model / name).stat().st_size for name in words[3:])
    assert (found["files"].found or "").startswith(f"{len(words) - 3} for {'half precision' if half else 'float32'}, ")
    assert gigabytes(size) in (found["files"].found or "")
    assert not list(tmp_path.glob("cache/**/*.safetensors"))  # nothing was downloaded
    hub.snapshot(card.sources[1], allow_patterns=words[3:])  # what the command does
    found = told("sd21-base")
    assert found["cached"].found == f"all of it, in {hub.place(card.sources[1])}"
    hub.asked.clear()
    told("sd21-base")
    assert not hub.asked


def test_a_download_that_was_begun(hub, model):
    source = cards()["sd15"].sources[0]
    hub.folders[source] = model
    hub.snapshot(source, allow_patterns=["unet/*"])
    found = told("sd15")
    assert (found["begun"].found or "").startswith("2 of ") and found["cached"].found is None


@pytest.mark.parametrize("name", ["sd15", "sd21-base", "sdxl", "deepfloyd-if", "sd3", "sana", "mvdream"])
@pytest.mark.parametrize("how", ["down", "offline", "gone"])
def test_without_an_answer_the_card_tells_and_the_exit_code_is_0(name, how, hub, capsys):
    hub.down = how == "down"
    if how == "offline":
        go_offline()
    assert execute(["doctor", "--prior", name]) == 0
    text, card = capsys.readouterr().out, cards()[name]
    size = f"up to {2 * card.size_gb:g} GB in float32" if card.variant else f"about {card.size_gb:g} GB"
    assert f"{size}, by the card; {card.sources[0]}: " in text
    reason = {"down": "the hub cannot be reached", "offline": "forbids to ask the hub", "gone": "no such model"}[how]
    assert reason in text and card.licence in text and f"{hub.cache}, " in text
    assert f"hf download {card.sources[0]}" in text
    assert ("gated: accept the licence at https" in text) is card.gated
    assert how != "offline" or not hub.asked


def test_without_any_network_at_all(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    go_offline_until_the_end(monkeypatch)
    tried = forbid_network(monkeypatch)
    assert execute(["doctor", "--prior", "sd15"]) == 0 and execute(["doctor"]) == 0
    assert "up to 4.2 GB in float32" in capsys.readouterr().out and not tried


def go_offline_until_the_end(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("HF_HUB_OFFLINE", "0")
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    go_offline()


@pytest.mark.parametrize("half", [False, True])
def test_patterns_get_at_least_what_is_needed(half, model, hub):
    """The command for when nothing could be asked, against the listing of a real layout."""
    share = next(iter(inventory.find_shares("sd15", half)))
    words = shlex.split(share.command(half))
    assert words[:3] == ["hf", "download", cards()["sd15"].sources[0]]
    flags = [(words[i], words[i + 1]) for i in range(3, len(words), 2)]
    names = [path.relative_to(model).as_posix() for path in model.rglob("*.*") if path.is_file()]
    kept = {
        name
        for name in names
        if any(fnmatch(name, pattern) for flag, pattern in flags if flag == "--include")
        and not any(fnmatch(name, pattern) for flag, pattern in flags if flag == "--exclude")
    }
    kind = ".fp16" if half else ""
    assert {name for name in kept if name.endswith("safetensors")} == {f"{name}{kind}.safetensors" for name in WEIGHTS}
    assert {"model_index.json", "tokenizer/tokenizer.json", "scheduler/scheduler_config.json"} <= kept
    assert not any(name.endswith(".bin") for name in kept)


def test_a_gated_model_whose_listing_is_public(hub, model):
    source = cards()["deepfloyd-if"].sources[0]
    hub.folders[source] = model
    hub.gated.add(source)
    found = told("deepfloyd-if")
    address = f"{constants.ENDPOINT}/{source}"
    assert found["access"].found == f"gated: accept the licence at {address}, then run `hf auth login`"
    assert "vae" not in found["cached"].cure and "unet/config.json" in found["cached"].cure


def test_both_shares_of_mvdream(hub, model, tmp_path):
    card = cards()["mvdream"]
    (tmp_path / "remote").mkdir()
    (tmp_path / "remote" / (card.checkpoint or "")).write_bytes(b"1" * 3000)
    hub.folders |= {card.sources[0]: tmp_path / "remote", cards()["sd21-base"].sources[0]: model}
    commands = [finding.cure for finding in prior_findings("mvdream") if finding.name == "cached"]
    assert commands[0] == f"hf download {card.sources[0]} {card.checkpoint}"
    assert "vae/config.json" in commands[1] and "unet" not in commands[1]


def test_any_hub_id(hub, model):
    hub.folders["any/model"] = model
    found = told("any/model")
    assert "unet/diffusion_pytorch_model.safetensors" in found["cached"].cure and "licence" not in found
    hub.gated.add("gated/model")
    hub.folders["gated/model"] = model
    assert "of unknown size; gated/model: it is gated: accept" in (told("gated/model")["download"].found or "")


def test_weights_of_one_other_variant_are_named_and_complete(hub, model, tmp_path):
    folder = Path(shutil.copytree(model, tmp_path / "varied"))
    for name in WEIGHTS:
        (folder / f"{name}.fp16.safetensors").unlink()
        (folder / f"{name}.safetensors").rename(folder / f"{name}.bf16.safetensors")
    hub.folders["any/model"] = folder
    assert all(f"{name}.bf16.safetensors" in told("any/model")["cached"].cure for name in WEIGHTS)
    found = told(str(folder))
    assert found["unet"].found and found["all in all"].found == f"complete: --prior {folder} loads it"


def test_too_little_room_is_told(hub, monkeypatch):
    hub.down = True
    monkeypatch.setattr(inventory, "free_space", lambda folder: 10**9)
    found = told("sdxl")
    assert found["hub cache"].found == f"{hub.cache}, 1.0 GB free"
    assert found["space"].cure == "13.8 GB are to come; let HF_HUB_CACHE name a folder with room"


def test_free_space_of_a_folder_that_is_not_there(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    assert abs(inventory.free_space(str(tmp_path / "not/yet")) - free) < 0.1 * free


@pytest.mark.parametrize(
    ("size", "text"), [(5.14e9, "5.1 GB"), (167e6, "0.2 GB"), (12e6, "12.0 MB"), (60e3, "0.1 MB"), (900, "0.9 kB")]
)
def test_sizes(size, text):
    assert gigabytes(size) == text


def test_a_folder_part_by_part(model, tmp_path):
    found = told(str(model))
    assert found["class"].found == "StableDiffusion" and found["unet"].found and found["vae"].found
    assert found["all in all"].found == f"complete: --prior {model} loads it"
    broken = shutil.copytree(model, tmp_path / "broken")
    shutil.rmtree(broken / "vae")
    (broken / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"cut")
    found = told(str(broken))
    assert found["vae"].found is None and found["vae"].cure == f"{broken} lacks a part: vae/config.json is missing"
    assert found["all in all"].found is None
    shutil.copytree(model / "vae", broken / "vae")
    assert "are corrupted" in told(str(broken))["all in all"].cure
    (broken / "model_index.json").write_text("{")
    assert "model_index.json: not valid JSON" in told(str(broken))["all in all"].cure


def test_the_shipped_prior():
    found = told("shapes")
    assert found["licence"].found == "Apache-2.0" and found["all in all"].found
    assert told("auto").keys() == {"chosen", *found}


def test_a_checkpoint_in_one_file(tmp_path):
    unet = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3)}
    save_file(unet, tmp_path / "v1.safetensors")
    found = told(str(tmp_path / "v1.safetensors"))
    assert found["family"].found == "StableDiffusionPipeline, in the original layout"
    assert found["configs"].found == "those of sd15, or of --model.config"
    assert found["autoencoder"].cure == "the file holds none: name one with --model.vae" and "says itself" not in found
    whole = {**unet, "first_stage_model.encoder.conv_in.weight": torch.zeros(1), "v_pred": torch.zeros(0)}
    save_file(whole, tmp_path / "v1.safetensors")
    found = told(str(tmp_path / "v1.safetensors"))
    assert "autoencoder" not in found and found["says itself"].found == "prediction_type v_prediction"
    context = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({**unet, context: torch.zeros(8, 1024)}, tmp_path / "v2.safetensors")
    assert told(str(tmp_path / "v2.safetensors"))["configs"].found is None
    save_file({"lora_x": torch.zeros(1)}, tmp_path / "lora.safetensors")
    assert "is a LoRA" in told(str(tmp_path / "lora.safetensors"))["family"].cure


def test_without_a_home_folder_it_says_what_is_kept_nowhere(tmp_path, monkeypatch):
    unet = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3)}
    save_file(unet, tmp_path / "v1.safetensors")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "~")
    found = told(str(tmp_path / "v1.safetensors"))["kept"]
    assert (found.found, found.cure) == (
        None, "there is no home folder to keep a cache in; set XDG_CACHE_HOME to a folder"
    )  # fmt: skip


def test_where_compiled_kernels_are_kept_or_that_every_process_compiles(monkeypatch):
    def kernels() -> Finding:
        return next(finding for finding in machine.findings() if finding.name == "numba kernels")

    assert kernels().found == f"kept in {place.stats.cache_path}"
    monkeypatch.setattr("gsdistill.renderer._bins.place", numba.njit(lambda x: x))
    assert kernels().found is None and "NUMBA_CACHE_DIR" in kernels().cure


@pytest.mark.parametrize(
    ("name", "compiles", "refusal", "renderer"),
    [
        ("cpu", False, None, "cpu"),
        ("cuda", False, None, "cuda"),
        ("cuda", True, "tried, which would compile", "cuda, whose kernels are compiled at the first use, for minutes"),
        ("cuda", False, "gsplat has no compiled kernels", "cpu (gsplat has no compiled kernels)"),
    ],
)
def test_what_draws_on_a_device(name, compiles, refusal, renderer, monkeypatch):
    monkeypatch.setattr("gsdistill.renderer.base.compiles", lambda device: compiles)
    monkeypatch.setattr("gsdistill.renderer.base.refusal", lambda device: refusal)
    assert machine._renderer(torch.device(name)) == renderer


def test_an_apple_gpu_computes_the_prior_alone(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    lines = {finding.name: finding.found or "" for finding in machine.findings()}
    assert lines["device"].startswith("cpu") and lines["renderer"] == "cpu"
    assert lines["mps"].endswith("; renderer cpu (there is no renderer for mps)")


def test_a_name_that_is_none(capsys):
    with pytest.raises(ConfigError, match="Did you mean 'sd15'"):
        told("sd155")
    assert execute(["doctor", "--prior", "sd155"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: prior = 'sd155'") and error.count("\n") == 1


def test_the_plain_doctor_has_all_cards(hub, model):
    source = cards()["sd15"].sources[2]
    hub.folders[source] = model
    assert {finding.name for finding in machine.findings() if finding.group == "models"} == {"hub cache", *cards()}
    load_prior(source)
    lines = {finding.name: finding for finding in machine.findings() if finding.group == "models"}
    assert lines["sd15"].found == source and lines["sdxl"].cure == "gsdistill doctor --prior sdxl"


PINS = """# tests run on Python: {python}
torch=={torch}
peft==0.0.1 ; python_version < '3'
no-such-package==1.0
diffusers==9.9.9
"""


@pytest.mark.parametrize("ran", [True, False])
def test_versions_that_differ_from_the_tested_ones_are_named(ran, tmp_path, monkeypatch):
    """Those for another Python, and those of packages that are not installed, are no difference."""
    here = ".".join(platform.python_version_tuple()[:2])
    pins = tmp_path / "pins.txt"
    pins.write_text(PINS.format(python=here if ran else "2.7", torch=torch.__version__.partition("+")[0]))
    monkeypatch.setattr(machine, "data_path", lambda *parts: pins)
    line = next(finding.found for finding in machine.findings() if finding.name == "versions") or ""
    held = f"diffusers {metadata.version('diffusers')} (tested: 9.9.9)"
    other = "" if ran else f"Python {here} (tested: 2.7), "
    assert line == f"not as tested: {other}{held}; pip install -c {pins} gets the tested packages"
    pins.write_text(pins.read_text().replace("9.9.9", metadata.version("diffusers")).replace("2.7", here))
    assert next(finding.found for finding in machine.findings() if finding.name == "versions") == "as tested"


@pytest.mark.parametrize("half", [False, True])
def test_a_folder_s_sizes_are_of_the_precision_that_would_be_loaded(half, model, monkeypatch):
    monkeypatch.setattr("gsdistill.core.device.choose", lambda name: torch.device("meta" if half else "cpu"))
    found = told(str(model))
    for weights in WEIGHTS:
        part = weights.partition("/")[0]
        files = [model / f"{weights}{'.fp16' if half else ''}.safetensors", model / part / "config.json"]
        assert found[part].found == gigabytes(sum(file.stat().st_size for file in files))


def test_the_self_test_names_the_stage_that_fails_and_ends_there(monkeypatch, capsys):
    def stages(config):
        assert config.iterations == 100
        yield "shapes loads"
        raise RuntimeError("no compiler\nmore")

    monkeypatch.setattr(selftest, "_stages", stages)
    assert execute(["doctor", "--run"]) == 2
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["self-test", "prior", "renderer", "->"]
    assert "RuntimeError: no compiler\n" in out
    assert err == "error: the self-test failed: renderer\n"


def test_a_figure_out_of_its_range_fails_the_self_test(monkeypatch):
    monkeypatch.setattr(selftest, "load_prior", lambda *settings: type("Prior", (), {"name": "shapes"}))
    trial = type("Trial", (), {"step": lambda self: None})()
    monkeypatch.setattr(selftest, "prepared", lambda *settings: (None, trial))
    monkeypatch.setattr(selftest, "run", lambda *settings: None)
    summary = {"skipped_steps": 0, "iterations_per_second": 5.0}
    monkeypatch.setattr(selftest, "read_json", lambda path: summary)
    figures = {name: sum(ends) / 2 for name, ends in selftest.EXPECTED.items()}
    monkeypatch.setattr(selftest, "evaluate_run", lambda folder: figures)
    assert [finding.name for finding in selftest.selftest() if finding.found] == ["prior", "renderer", "steps", "shape"]
    figures["iou"] = 0.5
    assert list(selftest.selftest())[-1].cure.startswith("UserError: iou = 0.500, where ")
    summary["skipped_steps"] = 3
    assert list(selftest.selftest())[-1].cure == "UserError: 3 steps had a gradient that is not finite"


@pytest.mark.slow
def test_the_self_test_passes(capsys):
    assert execute(["doctor", "--run"]) == 0
    assert "failed" not in capsys.readouterr().out
