"""The same settings give the same bits: whether kernels are compiled or loaded, and however many threads there are."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gsdistill"

RUN = """
import hashlib, torch
from gsdistill import generate
from gsdistill.core import device
from gsdistill.run import config as runconfig
from gsdistill.prior.loading import load_prior

here, digest = torch.device("cpu"), hashlib.sha256()
device.prepare(here, deterministic=True)
given = {"prompt": "a red torus", "prior": "shapes", "method": {"name": "sds"}, "init": {"name": "ball", "count": 3000}}
given |= {"iterations": 4, "seed": 5}
given |= {"densify": {"enabled": True, "start": 0, "stop": 1, "every": 0.5, "grow_grad2d": 0.1}}
config = runconfig.resolve(given)
prior = load_prior(config.prior, here, config.model)
initial, run = generate.prepared(config, prior, here)
for record in run:
    for value in (record.loss, record.images, *run.representation.params.values()):
        digest.update(value.detach().numpy().tobytes())
assert run.representation.grown
print(digest.hexdigest())
"""


def bits(cache: Path, **environment: str) -> str:
    """A digest of all that four steps did, in a process of its own."""
    surroundings = {**os.environ, "NUMBA_CACHE_DIR": str(cache), **environment}
    return subprocess.check_output([sys.executable, "-c", RUN], env=surroundings, cwd=PACKAGE.parent, text=True)


@pytest.mark.slow
def test_a_run_that_compiles_has_the_bits_of_a_later_one_with_other_threads_hashes_and_language(tmp_path):
    first = bits(tmp_path, OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", PYTHONHASHSEED="1")
    assert any(tmp_path.rglob("*.nbi"))  # it has compiled
    later = bits(tmp_path, OMP_NUM_THREADS="2", NUMBA_NUM_THREADS="2", PYTHONHASHSEED="2", LC_ALL="C")
    assert first == later


def kernels() -> Iterator[tuple[str, ast.FunctionDef, dict[str, bool]]]:
    """Module, definition and options of every compiled function."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in (found for found in ast.walk(tree) if isinstance(found, ast.FunctionDef)):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "compiled":
                    options = {word.arg: ast.literal_eval(word.value) for word in mark.keywords if word.arg}
                    yield path.stem, node, options


def test_fast_kernels_that_others_call_are_inlined():
    """Else two copies of one sum exist, added up in different orders, and which one runs depends on the cache."""
    found = list(kernels())
    called = {
        call.func.id
        for _, kernel, _ in found
        for call in ast.walk(kernel)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    }
    assert {kernel.name for _, kernel, _ in found} & called
    wrong = [
        f"{module}.{kernel.name}"
        for module, kernel, options in found
        if kernel.name in called and options.get("fast", True) and not options.get("inline", False)
    ]
    assert not wrong
