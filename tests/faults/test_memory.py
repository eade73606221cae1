"""Memory that runs out: one line that names what would help, and a run that can go on."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from rich.console import Console

from gsdistill import generate
from gsdistill.core.device import out_of_memory
from gsdistill.core.errors import OutOfMemory
from gsdistill.prior.analytic import AnalyticPrior, Mixture
from gsdistill.renderer import cpu
from gsdistill.run import config as runconfig
from gsdistill.training import checkpoint

ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried 9 B"),
]
OTHERS = [RuntimeError("shapes do not match"), ValueError("out of memory"), KeyError("memory")]
SIZE = 16


@pytest.mark.parametrize("ask", [lambda: torch.empty(2**50), lambda: np.empty(2**50), lambda: bytearray(2**60)])
def test_what_libraries_say_is_understood(ask):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        ask()
    assert out_of_memory(caught.value)


@pytest.mark.parametrize("error", OTHERS)
def test_other_errors_are_not_taken_for_it(error):
    assert not out_of_memory(error)


class Small(AnalyticPrior):
    """Everything is dark blue; the network raises ``error`` at a step, once."""

    def __init__(self, error: Exception | None = None, at: int = 4) -> None:
        blue = torch.full((1, 3 * SIZE * SIZE), -0.5, dtype=torch.float64)
        anything = Mixture(torch.ones(1), torch.zeros_like(blue), torch.ones(1))
        super().__init__(Mixture(torch.ones(1), blue, torch.tensor([0.2])), anything, (3, SIZE, SIZE))
        self.error, self.at, self.step = error, at, 0

    def encode(self, images):
        self.step += 1
        return super().encode(images)

    def network(self, latents, timesteps, text, cameras):
        if self.error and self.step == self.at:
            raise self.error
        return super().network(latents, timesteps, text, cameras)


def carry(folder, prior, **more):
    given = {"prompt": "blue", "prior": "shapes", "method": {"name": "sds"}, "init": {"name": "ball", "count": 40}}
    given |= {"recipe": False, "views": 2, "resolution": SIZE, "iterations": 8, "snapshots": 0, "output": str(folder)}
    generate.run(runconfig.resolve(given | more), Console(quiet=True), prior, extras=False)
    return (folder / "gaussians.ply").read_bytes()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_step_without_memory_names_the_settings_and_the_run_goes_on_to_the_same_end(error, tmp_path):
    with pytest.raises(OutOfMemory, match=r"lower views .*resolution .*densify\.budget") as caught:
        carry(tmp_path / "cut", Small(error))
    assert "\n" not in str(caught.value) and "model.precision float16, model.recompute_encoder" in str(caught.value)
    saved, damaged = checkpoint.read_last(tmp_path / "cut" / "checkpoints")
    assert saved.counters.done == 3 and not damaged
    assert carry(tmp_path / "cut", Small(), resume=True) == carry(tmp_path / "whole", Small())


def test_more_pairs_than_can_be_numbered_are_refused_before_they_are_made():
    """The lists of the tiles hold 32-bit places: beyond them memory would be written that is not theirs."""
    count = 70_000
    splats = np.zeros((count, 12), np.float32)
    splats[:, :2], splats[:, 2], splats[:, 4], splats[:, 10:] = 1024, 1e-9, 1e-9, 1e6
    bands = np.full(count, 2048 // 16, np.int64)
    with pytest.raises(MemoryError, match="2,293,760,000 pairs"):
        cpu.bins_of(1, splats, bands, 1, 2048, 2048)


LIMITED = """
import resource, sys
from gsdistill import generate
from gsdistill.cli import main
now = 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1])
resource.setrlimit(resource.RLIMIT_AS, (now + 500 * 2**20,) * 2)
sys.argv = ["gsdistill", *sys.argv[1:]]
sys.exit(main.execute(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and RLIMIT_AS")
def test_a_process_that_may_have_no_more_memory_ends_in_one_line(tmp_path):
    """For real: pictures of 4096 px under a limit half a gigabyte above what the program itself takes."""
    words = ["generate", "--prompt", "a red torus", "--method", "sds", "--resolution", "4096", "--snapshots", "0"]
    command = [sys.executable, "-c", LIMITED, *words, "--output", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "resolution (now 4096)" in " ".join(done.stderr.split())
