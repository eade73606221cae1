"""The device that a name stands for, with and without an accelerator."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from gsdistill.cli.main import execute
from gsdistill.core.device import (
    choose,
    failure,
    forget_peak,
    multiplies_bfloat16,
    peak_memory,
    prepare,
    processor,
    refusal,
)
from gsdistill.core.errors import ConfigError


@pytest.fixture
def accelerators(monkeypatch):
    """A function that pretends a number of accelerators and whether there is an Apple one."""

    def pretend(count, apple=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)
        monkeypatch.setattr("gsdistill.core.device.refusal", lambda name: None)

    return pretend


@pytest.mark.parametrize(
    ("count", "apple", "name", "device"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "cpu"),
        (2, False, "auto", "cuda"),
        (2, False, "cpu", "cpu"),
        (2, False, "cuda", "cuda"),
        (2, False, "cuda:1", "cuda:1"),
        (0, True, "mps", "mps"),
    ],
)
def test_the_device_of_a_name(accelerators, count, apple, name, device):
    accelerators(count, apple)
    assert choose(name) == torch.device(device)


@pytest.fixture
def settings(monkeypatch):
    """What :func:`prepare` changes for the whole process, to be as it was afterwards."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture
def current(monkeypatch):
    """The numbers of the devices that became the current one."""
    found = []
    monkeypatch.setattr(torch.accelerator, "set_device_index", found.append)
    return found


def test_a_numbered_device_becomes_the_current_one(settings, current):
    for name in ("cpu", "cuda", "cuda:1", "mps", "cuda:0"):
        prepare(torch.device(name))
    assert current == [1, 0]


def test_algorithms_are_tried_unless_the_bits_must_be_the_same(settings):
    """A trial takes what was the fastest this time."""
    flags = torch.backends.cudnn, torch.utils.deterministic
    prepare(torch.device("cuda"))
    assert flags[0].benchmark and not torch.are_deterministic_algorithms_enabled()
    prepare(torch.device("cuda"), deterministic=True)
    assert torch.are_deterministic_algorithms_enabled() and not flags[0].benchmark
    assert not flags[1].fill_uninitialized_memory
    prepare(torch.device("cuda"))  # of a second run in a process whose first one has made it deterministic
    assert not flags[0].benchmark
    torch.set_num_threads(2)
    prepare(torch.device("cpu"), deterministic=True)
    assert torch.get_num_threads() == 1


RUN = ["--prompt", "a red torus", "--prior", "shapes", "--device", "cuda:1"]


@pytest.mark.parametrize(
    ("words", "load"),
    [
        (["generate", *RUN, "--output", "run"], "gsdistill.generate.load_prior"),
        (["generate", *RUN, "--output", "run", "--dry-run"], "gsdistill.cli.foresight.load_prior"),
        (["bench", *RUN], "gsdistill.prior.loading.load_prior"),
        (["sweep", "--prompts", "a red torus", "--device", "cuda:1"], "gsdistill.sweep.run.load_prior"),
        (["play2d", "--prior", "shapes", "--device", "cuda:1"], "gsdistill.laboratory.play.load_prior"),
    ],
)
def test_it_is_so_before_a_prior_is_loaded(words, load, accelerators, settings, current, tmp_path, monkeypatch, capsys):
    accelerators(2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)

    def stop(*given):
        raise ConfigError(f"here, with {current} on {given[1]}")

    monkeypatch.setattr(load, stop)
    assert execute(words) == 2
    assert capsys.readouterr().err.endswith("error: here, with [1] on cuda:1\n")


def test_a_device_s_own_memory_is_asked_for(monkeypatch):
    reset = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 100 + device.index)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 7)
    places = [torch.device(name) for name in ("cuda:1", "mps")]
    assert [peak_memory(place) for place in places] == [101, 7]
    for place in places:
        forget_peak(place)
    assert reset == places[:1]


WRONG = ["", "gpu", "cpu:0", "auto:1", "cuda:", "cuda:x", "cuda:-1", "cuda:1:2", "cudaa", "mps:1", "CPU"]


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_device(accelerators, name):
    accelerators(4, True)
    with pytest.raises(ConfigError, match=f"device = '{name}' is not a device"):
        choose(name)


@pytest.mark.parametrize(
    ("count", "name", "message"),
    [
        (0, "cuda", "device = 'cuda': CUDA devices of this machine: 0; use --device auto or cpu"),
        (1, "cuda:1", "device = 'cuda:1': CUDA devices of this machine: 1; use --device auto or cpu"),
        (1, "mps", "device = 'mps': this machine has no Apple GPU; use --device auto or cpu"),
    ],
)
def test_what_this_machine_lacks(accelerators, count, name, message):
    accelerators(count)
    with pytest.raises(ConfigError) as caught:
        choose(name)
    assert str(caught.value) == message


NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"


@pytest.fixture
def useless(monkeypatch):
    """One that torch lists, and that fails when it is first used."""

    def fail():
        raise RuntimeError(f"{NO_KERNEL}\nCUDA kernel errors might be asynchronously reported at some other API call")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "_lazy_init", fail)
    refusal.cache_clear()
    yield
    refusal.cache_clear()


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_one_that_is_listed_and_cannot_be_used_is_refused_in_one_sentence(name, useless):
    with pytest.raises(ConfigError) as caught:
        choose(name)
    told = (
        f"device = '{name}' is listed, and cannot be used: {NO_KERNEL}; use --device cpu, or a torch that fits the GPU"
    )
    assert str(caught.value) == told


def test_auto_is_the_cpu_then_and_says_why(useless):
    said = []
    assert choose("auto", said.append) == choose("cpu", said.append) == torch.device("cpu")
    assert said == [f"device: cpu (cuda is listed, and cannot be used: {NO_KERNEL})"]


def test_the_trial_is_made_once(useless, monkeypatch):
    real, tried = torch.full, []
    monkeypatch.setattr(torch, "full", lambda *given, **more: (tried.append(more), real(*given, **more))[1])
    assert [choose("auto").type for _ in range(3)] == ["cpu"] * 3
    assert len(tried) == 1


def test_the_trial_of_one_that_computes_and_of_one_that_computes_something_else(monkeypatch):
    assert refusal.__wrapped__("cpu") is None
    real = torch.full
    monkeypatch.setattr(torch, "full", lambda *given, **more: real(*given, **more) + 1)
    assert refusal.__wrapped__("cpu") == "it computes 3 x 2 x 1.5 = 15"


def test_one_whose_memory_is_full_can_be_used(monkeypatch):
    def fail(*given, **more):
        raise RuntimeError("CUDA error: out of memory\nmore")

    monkeypatch.setattr(torch, "full", fail)
    assert refusal.__wrapped__("cpu") is None


@pytest.mark.slow
def test_a_run_says_it_once_and_goes_on_without(useless, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the checkout may hold such a run
    words = ["generate", "--prompt", "a red torus", "--dry-run"]
    assert execute(words) == 0
    told = capsys.readouterr().err
    assert told.count(NO_KERNEL) == 1 and "device: cpu (cuda is listed" in told
    assert execute([*words, "--device", "cuda"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: device = 'cuda' is listed") and told.count("\n") == 1


def test_doctor_has_tried_it(useless, capsys):
    assert execute(["doctor"]) == 0
    told = capsys.readouterr().out
    assert f"cuda, tried     cannot be used: {NO_KERNEL}; until its driver" in told and "device          cpu" in told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError(f"{NO_KERNEL}\nmore"), NO_KERNEL),
        (torch.AcceleratorError("an illegal memory access was encountered\nmore"), "an illegal memory access"),
        (RuntimeError("Found no NVIDIA driver on your system. Please check"), "Found no NVIDIA driver"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "cuDNN error"),
    ],
)
def test_what_fails_later_is_one_line_on_the_command_line(error, told, monkeypatch, capsys):
    def fail(argv):
        raise error

    monkeypatch.setattr("gsdistill.cli.main._dispatch", fail)
    assert execute(["generate"]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: the GPU or its driver failed: {told}") and "--device cpu" in line
    assert line.count("\n") == 1 and "more" not in line


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("CUDA error"), RuntimeError("")])
def test_other_errors_are_no_failures_of_an_accelerator(error):
    assert failure(error) is None


def test_the_processor_has_a_name():
    assert processor().strip()


@pytest.mark.slow
def test_the_peak_of_a_process_holds_what_was_once_allocated():
    """In a process of its own, whose peak is small yet."""
    code = """
import torch
from gsdistill.core.device import forget_peak, peak_memory
cpu = torch.device("cpu")
before = peak_memory(cpu)
size = before + 50_000_000  # more than was ever held, whatever is free now
torch.ones(size, dtype=torch.uint8)
forget_peak(cpu)
assert before + 50_000_000 <= peak_memory(cpu) < before + 2 * size, (before, peak_memory(cpu))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("tiles", "vectors", "device", "faster"),
    [
        (True, False, "cpu", True),
        (True, True, "cpu", True),
        (False, True, "cpu", True),  # AMD since Zen 4, and Intel's Cooper Lake
        (False, False, "cpu", False),
        (True, True, "meta", False),
    ],
)
def test_bfloat16_where_the_processor_multiplies_it(tiles, vectors, device, faster, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: vectors)
    assert multiplies_bfloat16(torch.device(device)) is faster
