"""The device that a name stands for, with and without an accelerator."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from gsdistill.device import choose, multiplies_bfloat16, processor
from gsdistill.errors import ConfigError


@pytest.fixture
def accelerators(monkeypatch):
    """A function that pretends a number of accelerators and whether there is an Apple one."""

    def pretend(count, apple=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)

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


def test_the_processor_has_a_name():
    assert processor().strip()


def test_the_peak_of_a_process_holds_what_was_once_allocated():
    """In a process of its own, whose peak is small yet."""
    code = """
import torch
from gsdistill.device import forget_peak, peak_memory
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
