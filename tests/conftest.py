"""Fixtures shared by several rooms' tests, which tests run without ``--all``, and what is kept for the next run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from caches import kept, kernels, worlds

from gsdistill.core.errors import OutputError
from gsdistill.disk.places import cache_folder

try:  # before the tests move the user's caches
    CACHES = cache_folder("tests")
    os.environ.setdefault("NUMBA_CACHE_DIR", str(kept(CACHES, "numba", kernels())))  # read when numba is imported
except (OSError, OutputError):  # no home, or none to write in
    CACHES = None

# Workers of `pytest -n` share the processors, and so do the processes that they start; read when torch is imported.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, str(max(1, (os.cpu_count() or 1) // int(workers))))

from gsdistill.core.threads import sleep_soon

sleep_soon()  # as the command line does

import pytest
import torch
from renderer import emulator

from gsdistill.core.structs import Cameras
from gsdistill.prior.analytic import AnalyticPrior, Mixture
from gsdistill.scene.viewpoints import orbit

# What runs with ``--all`` alone, or where -m asks for it; a folder of one kind is marked as a whole.
LATER = ("drill", "browser", "emulated", "gpu", "compiles", "slow")
FOLDERS = {"faults": "drill", "fuzz": "drill", "security": "drill", "browser": "browser"}


def gaussian(mean: float, deviation: float, dimensions: int) -> Mixture:
    """One isotropic Gaussian."""
    return Mixture(
        torch.ones(1, dtype=torch.float64),
        torch.full((1, dimensions), mean, dtype=torch.float64),
        torch.tensor([deviation], dtype=torch.float64),
    )


def extensions() -> Path:
    """The folder of what torch compiles, by the caches as they are now."""
    from torch.utils import cpp_extension  # which takes a second to import

    return Path(cpp_extension._get_build_directory("gsplat_cuda", verbose=False)).parent


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches of this test run alone, so that nothing comes from an earlier one or stays behind.

    But for what takes long to make and is named by its sources: the traced truth, and kernels. Those for a GPU stay
    where torch has them.
    """
    with pytest.MonkeyPatch.context() as patch:
        if torch.cuda.is_available() and "TORCH_EXTENSIONS_DIR" not in os.environ:
            patch.setenv("TORCH_EXTENSIONS_DIR", str(extensions()))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        if CACHES is not None:
            with suppress(OSError):  # where an account may make no links
                cache_folder().mkdir()
                cache_folder("truth").symlink_to(kept(CACHES, "truth", worlds()))
        yield


@pytest.fixture(autouse=True)
def in_place_of_a_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests marked ``emulated``: gsplat's kernels, compiled for the processor, in the place of those on a GPU."""
    if request.node.get_closest_marker("emulated"):
        if reason := emulator.missing():
            pytest.skip(f"gsplat's kernels cannot be compiled here: {reason}")
        emulator.take_the_place_of_a_gpu(monkeypatch)


@pytest.fixture
def gaussian_prior() -> AnalyticPrior:
    """N(0.4, 0.3^2) given the prompt, N(0, 1) without."""
    return AnalyticPrior(gaussian(0.4, 0.3, 12), gaussian(0.0, 1.0, 12), (3, 2, 2))


@pytest.fixture
def cameras() -> Cameras:
    """Four views of 8 pixels."""
    return orbit(4, 8)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help=f"run every test, also those marked {', '.join(LATER)}")


def pytest_report_header(config: pytest.Config) -> str:
    return "every test" if runs_all(config) else f"without --all: no tests that are marked {', '.join(LATER)}"


def runs_all(config: pytest.Config) -> bool:
    return config.getoption("all") or bool(config.getoption("markexpr"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the folders of one kind, leave out what is for later, and put last what waits for a compiler.

    A run that is cut short has the other answers by then.
    """
    here = Path(__file__).parent
    for item in items:
        if kind := FOLDERS.get(item.path.relative_to(here).parts[0]):
            item.add_marker(kind)
    if not runs_all(config):
        later = [item for item in items if any(item.get_closest_marker(kind) for kind in LATER)]
        config.hook.pytest_deselected(items=later)
        items[:] = [item for item in items if item not in set(later)]
    items.sort(key=lambda item: item.get_closest_marker("compiles") is not None)
