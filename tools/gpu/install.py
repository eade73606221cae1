"""The first part of gpu_check.sh: an environment of which the packages that are here are a part, and a look at it.

    python tools/gpu/install.py install FOLDER [WHEELDIR] [--small]
    python tools/gpu/install.py look FIGURES.json [--small]

install: FOLDER becomes a virtual environment that sees the packages of the Python that runs this, which may itself be
one of a virtual environment, and this checkout; what pyproject.toml asks for and is not there comes from WHEELDIR or,
where that does not come out, all that lies there. It needs no ensurepip. look, by the Python of the environment: what
the device, its driver, torch and gsplat are; it fails where torch finds no NVIDIA GPU, and where gsplat has no compiled
kernels for this torch, which it would build for minutes. --small asks for neither.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import tomllib

ROOT = Path(__file__).parents[2]
TESTS = r"(pytest|beartype|hypothesis)\b(?!-)"  # of the developers' packages those of the tests
KERNELS = "import torch, gsplat.csrc"
NO_KERNELS = (
    "gsplat {version} has no compiled kernels that torch {torch} can load ({reason}): put a wheel of gsplat that was "
    "built for this Python, torch and CUDA into WHEELDIR, or build one where there is nvcc, by "
    "TORCH_CUDA_ARCH_LIST={capability} pip wheel --no-build-isolation --no-deps gsplat=={version}"
)


def install(folder: Path, wheels: Path | None, small: bool) -> int:
    """Make the environment; the exit status."""
    make = [sys.executable, "-m", "venv", "--clear", "--without-pip", "--system-site-packages", str(folder)]
    if status := subprocess.run(make, check=False).returncode:
        return status
    python = str(folder / "bin" / "python")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    paths = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(ROOT)])
    Path(site, "gsdistill-check.pth").write_text("".join(f"{path}\n" for path in paths))
    if wheels is None:
        return 0
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index"]
    if status := subprocess.run([*pip, "--find-links", str(wheels), *needed()], check=False).returncode:
        # A package that something there asks for and nothing here uses: take the folder as it is.
        status = subprocess.run([*pip, "--no-deps", *map(str, sorted(wheels.glob("*.whl")))], check=False).returncode
    gsplat = [] if small or status else sorted(map(str, wheels.glob("gsplat-*.whl")))
    if gsplat and subprocess.run([python, "-c", KERNELS], capture_output=True, check=False).returncode:
        # One without kernels is here already, by which pip was content.
        status = subprocess.run([*pip, "--no-deps", "--force-reinstall", *gsplat], check=False).returncode
    return status


def needed() -> list[str]:
    """What the checkout needs, with its tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tests = [line for line in project["optional-dependencies"]["dev"] if re.match(TESTS, line)]
    return [*project["dependencies"], *tests]


def look(small: bool) -> dict[str, Any]:
    """What is here.

    Raises:
        SystemExit: torch is missing or finds no NVIDIA GPU, or gsplat has no compiled kernels, in one sentence.
    """
    try:
        import torch  # isort: skip
        import gsplat

        import gsdistill
    except ImportError as error:
        raise SystemExit(
            f"{error}; name a Python that has it, as PYTHON=python3.12, or put its wheel into WHEELDIR"
        ) from error
    found = {
        "device": platform.processor() or platform.machine(), "driver": None, "python": platform.python_version(),
        "torch": torch.__version__, "cuda": torch.version.cuda, "gsplat": gsplat.__version__,
        "gsdistill": gsdistill.__version__,
    }  # fmt: skip
    if small:
        return found
    if not torch.cuda.is_available():
        raise SystemExit(f"torch {torch.__version__} finds no NVIDIA GPU here; --small goes through on a CPU")
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    try:
        import gsplat.csrc
    except ImportError as error:
        told = {"version": gsplat.__version__, "torch": torch.__version__, "reason": error, "capability": capability}
        raise SystemExit(NO_KERNELS.format(**told)) from error
    if shutil.which("nvidia-smi"):
        subprocess.run(["nvidia-smi"], check=False)
        ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        found["driver"] = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.splitlines()[0]
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return {
        **found, "device": torch.cuda.get_device_name(), "capability": capability, "memory_gib": round(memory, 1),
        "devices": torch.cuda.device_count(),
    }  # fmt: skip


def main() -> None:
    """Install, or look."""
    small = "--small" in sys.argv
    match [word for word in sys.argv[1:] if word != "--small"]:
        case ["install", folder, *wheels] if len(wheels) < 2:
            raise SystemExit(install(Path(folder), Path(wheels[0]) if wheels else None, small))
        case ["look", figures]:
            found = look(small)
            Path(figures).write_text(json.dumps(found, indent=2) + "\n")
            print(json.dumps(found))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
