"""gsplat's own CUDA kernels on a processor, behind gsplat's real Python wrapper: see README.md of this folder.

``python -m renderer.emulator`` (with ``tests`` on the path) compiles them ahead of the tests and says how long it took.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
import types
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from renderer.emulator.translation import translated

from gsdistill.disk.cache import cache_path

__all__ = ["EMULATED", "ON_GPU", "kernels", "missing", "sources", "take_the_place_of_a_gpu"]

NAME = "gsplat_emulated"
HARNESS = Path(__file__).parent / "cuda"
FOLDER = cache_path("emulator")  # before the tests move caches: what is compiled is kept for the next call of pytest
PARTS = (
    "Projection.cpp", "ProjectionEWA3DGSFused.cu", "Intersect.cpp", "IntersectTile.cu", "Rasterization.cpp",
    "RasterizeToPixels3DGSFwd.cu", "RasterizeToPixels3DGSBwd.cu", "SphericalHarmonics.cpp", "SphericalHarmonicsCUDA.cu",
    "Relocation.cpp", "RelocationCUDA.cu",
)  # fmt: skip
# As nvcc does, products and sums are contracted; what is of other kernels is dropped with what it calls.
FLAGS = ("-O2", "-w", "-U_FORTIFY_SOURCE", "-ffp-contract=fast", "-fvisibility=hidden", "-ffunction-sections")

ON_GPU = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")],
)
EMULATED = pytest.param("cuda", id="emulated", marks=pytest.mark.emulated)


@cache
def missing() -> str | None:
    """Why the kernels cannot be compiled here, or None."""
    from torch.utils import cpp_extension

    if sys.platform != "linux":
        return "fibers and linker are those of Linux"
    if not shutil.which(cpp_extension.get_cxx_compiler()):
        return f"no C++ compiler: {cpp_extension.get_cxx_compiler()} is not there"
    if not cpp_extension.is_ninja_available():
        return "no ninja"
    if FOLDER is None:
        return "no folder for what is compiled"
    return None


@cache
def sources() -> dict[str, str]:
    """The text of what is compiled of the installed gsplat, translated, by the name of its file."""
    spec = importlib.util.find_spec("gsplat")
    assert spec and spec.origin
    cuda = Path(spec.origin).parent / "cuda"
    headers = [path for folder in ("include", "csrc") for path in (cuda / folder).glob("*.*h")]
    return {path.name: translated(path.read_text()) for path in [*headers, *(cuda / "csrc" / name for name in PARTS)]}


@cache
def kernels() -> Any:
    """The module that stands in the place of ``gsplat.csrc``; compiled where there is none of these sources yet.

    Raises:
        RuntimeError: the compiler fails, with what it says.
    """
    import fcntl

    assert FOLDER is not None
    harness = {path: path.read_text() for path in sorted(HARNESS.rglob("*")) if path.is_file()}
    made_of = [torch.__version__, sys.version, version("gsplat"), *FLAGS, *harness.values(), *sources().values()]
    folder = FOLDER / hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "held").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # against other workers of the same tests
        library = folder / f"{NAME}.so"
        if not library.exists():
            _compile(folder)
    spec = importlib.util.spec_from_file_location(NAME, library)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _compile(folder: Path) -> None:
    """Compile in ``folder``, which is ours alone; torch's own lock of one that was killed would be waited for."""
    import gsplat
    from torch.utils import cpp_extension

    for name, text in sources().items():
        (folder / name).write_text(text)
    (folder / "lock").unlink(missing_ok=True)
    fused = ["-mfma"] if "fma" in _flags_of_the_processor() else []
    glm = Path(gsplat.__file__).parent / "cuda" / "csrc" / "third_party" / "glm"
    cpp_extension.load(
        NAME,
        [str(HARNESS / "module.cpp")],
        extra_include_paths=[str(HARNESS), str(folder), str(glm)],
        extra_cflags=[*FLAGS, *fused],
        extra_ldflags=["-Wl,--gc-sections"],
        build_directory=str(folder),
        is_python_module=False,
    )


def _flags_of_the_processor() -> list[str]:
    """What Linux says that it can do, on x86; elsewhere products and sums are fused without being asked."""
    try:
        return Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return []


def take_the_place_of_a_gpu(patch: pytest.MonkeyPatch) -> None:
    """Let the renderer ``cuda`` take scenes on the CPU and call the kernels here, and splats render by it."""
    import gsplat.cuda

    from gsdistill.renderer import base, cuda
    from gsdistill.representation import gaussians

    backend: Any = types.ModuleType("gsplat.cuda._backend")  # gsplat's own would look for a toolkit, and compile
    backend._C = kernels()
    patch.setitem(sys.modules, backend.__name__, backend)
    patch.setattr(gsplat.cuda, "_backend", backend, raising=False)
    patch.setattr(cuda, "_load", lambda: None)
    patch.setattr(cuda, "DEVICE", "cpu")
    patch.setattr(gaussians, "render", partial(base.render, backend="cuda"))
