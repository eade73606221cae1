"""The programs that gpu_check.sh has for itself, each as it is on a CPU."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import tooling
import torch

from gsdistill.prior import random_weights
from gsdistill.prior.loading import load_prior

resuming = tooling.tool("gpu/stop_and_resume")
tooling.tool("bench/peer_loop")  # which the next one imports
profiling = tooling.tool("bench/profile_steps")
models = tooling.tool("gpu/random_model")


def call(monkeypatch, program, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", [program.__name__, *words])
    program.main()


def records(**changes) -> list[dict]:
    """Of a run of four steps that grows in every one, with the changes of step 3."""
    steps = [{"step": k, "gaussians": resuming.COUNT + k, "finite": True, "loss": 1.0} for k in range(1, 5)]
    steps[2] |= changes
    return steps


def grown(*by: int) -> list[dict]:
    """Of a run that has so many Gaussians more than at its start."""
    return [{**record, "gaussians": resuming.COUNT + more} for record, more in zip(records(), by, strict=True)]


def test_a_whole_run_has_no_fault():
    assert resuming.faults(records(), 4, True) == []


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (records()[:3], "steps [1, 2, 3]"),
        ([*records()[:2], *records()[1:]], "steps [1, 2, 2, 3, 4]"),
        (records(finite=False), "a step is not finite"),
        (records(loss=None), "a step is not finite"),
        (grown(0, 0, 3, 4), "it did not grow before the stop"),
        (grown(1, 2, 2, 2), "it did not grow after the stop"),
    ],
)
def test_tells_what_is_wrong_with_a_run(found, fault):
    assert resuming.faults(found, 4, True) == [fault]


def test_a_splat_that_is_not_finite_is_a_fault():
    assert resuming.faults(records(), 4, False) == ["the splat is not finite"]


@pytest.mark.slow
def test_stops_half_way_and_goes_on(tmp_path, monkeypatch, capsys):
    call(monkeypatch, resuming, str(tmp_path / "run"), "--iterations", "4", "--json", str(tmp_path / "figures.json"))
    assert "all is kept up to step 2" in capsys.readouterr().out
    found = json.loads((tmp_path / "figures.json").read_text())
    first, middle, last = found["gaussians_at_start_stop_and_end"]
    assert found["iterations"] == 4 and first != middle != last and found["skipped_steps"] == 0


@pytest.mark.slow
def test_profiles_every_call_of_a_step(tmp_path, monkeypatch):
    flags = "--prior shapes --method sds --views 2 --resolution 32 --init.count 50 --steps 2 --warmup 1 --device cpu"
    call(monkeypatch, profiling, str(tmp_path / "table.txt"), "--json", str(tmp_path / "figures.json"), *flags.split())
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["milliseconds_of_kernels"] > 0 and found["milliseconds_on_the_wall"] > 0 and found["waits"] == 0
    assert found["kernels"] > 100 and len(found["longest_ms"]) == 10
    assert [*found["longest_ms"].values()] == sorted(found["longest_ms"].values(), reverse=True)
    table = (tmp_path / "table.txt").read_text()
    assert all(name[:60] in table for name in found["longest_ms"])


def test_a_profiler_that_sees_nothing_is_no_profile(tmp_path, monkeypatch):
    monkeypatch.setattr(profiling.profile, "key_averages", lambda _: [])
    flags = "--prior shapes --method sds --views 2 --resolution 32 --init.count 50 --steps 1 --warmup 1 --device cpu"
    with pytest.raises(SystemExit, match="saw nothing of cpu"):
        call(monkeypatch, profiling, str(tmp_path / "table.txt"), *flags.split())
    assert not (tmp_path / "table.txt").exists()


@pytest.mark.parametrize("words", [[], ["--prior", "shapes"]])
def test_the_table_comes_first(words, monkeypatch):
    with pytest.raises(SystemExit, match=r"TABLE\.txt"):
        call(monkeypatch, profiling, *words)


def test_a_mistake_is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"^profile_steps\.py: .*shapess"):
        call(monkeypatch, profiling, str(tmp_path / "table.txt"), "--prior", "shapess")
    with pytest.raises(SystemExit, match=r"^stop_and_resume\.py: .*tpu"):
        call(monkeypatch, resuming, str(tmp_path / "run"), "--device", "tpu")


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Small models, of which one's configs are a published architecture."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    call(monkeypatch, models, str(tmp_path / "tiny"), "--tiny")
    configs = tmp_path / "architectures/sd15"
    shutil.copytree(tmp_path / "tiny/stable_diffusion", configs, ignore=shutil.ignore_patterns("*.safetensors", "t*"))
    monkeypatch.setattr(models, "FOLDER", configs.parent)
    return tmp_path


@pytest.mark.slow
def test_a_folder_of_random_weights_is_loaded_as_any_other(small, monkeypatch):
    """Of the sizes that the configs say, with texts of its own."""
    call(monkeypatch, models, str(small / "model"), "--architecture", "sd15")
    assert (small / "model/unet/diffusion_pytorch_model.safetensors").stat().st_size > 0
    prior, tiny = (load_prior(str(small / name)) for name in ("model", "tiny/stable_diffusion"))
    shapes = [{name: value.shape for name, value in model._network.state_dict().items()} for model in (prior, tiny)]
    assert shapes[0] == shapes[1] and prior.encode_text("a red torus", "").positive.tokens.isfinite().all()
    assert prior.encode(torch.rand(1, 16, 16, 3)).shape == (1, *prior.latent_shape)


@pytest.mark.slow
def test_small_models_are_loaded(small):
    for name in ("stable_diffusion", "sdxl", "mvdream"):
        assert load_prior(str(small / "tiny" / name)).latent_shape == (4, 8, 8)


def test_only_architectures_of_that_layout_are_offered(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, models, "folder", "--architecture", "sdxl")
    assert {"sd15", "sd21-base"} <= {*random_weights.architectures()} and "sd21-base" in capsys.readouterr().err
