"""An environment beside the packages that are here, and what is said where torch or gsplat's kernels are missing."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest
import tooling
import torch

pytest.importorskip("tomllib", reason="gpu_check.sh wants Python 3.11")

tool = tooling.tool("gpu/install")


def importing(python: Path, code: str) -> str:
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True, cwd="/").stdout.strip()


def test_the_environment_sees_what_is_here_and_the_checkout(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert tool.install(tmp_path / "venv", None, small=False) == 0
    code = "import importlib.util as u; print(*[u.find_spec(name).origin for name in ('torch', 'gsplat', 'gsdistill')])"
    torchs, _, ours = importing(tmp_path / "venv/bin/python", code).split()
    assert torchs == torch.__file__ and Path(ours).parents[1] == tooling.TOOLS.parent
    assert not (tmp_path / "venv/bin/pip").exists()  # ensurepip, which a machine may lack, is not asked


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """Notes what would be installed; commands with a word of ``fails`` fail."""
    calls, fails, real = [], set(), subprocess.run

    def run(command, **options):
        if command[1:3] == ["-m", "venv"] or "sysconfig" in command[-1]:
            return real(command, **options)
        calls.append(command)
        return types.SimpleNamespace(returncode=int(bool(fails & {*command})))

    monkeypatch.setattr(subprocess, "run", run)
    return types.SimpleNamespace(calls=calls, fails=fails)


@pytest.fixture
def wheels(tmp_path) -> Path:
    folder = tmp_path / "some wheels"
    folder.mkdir()
    for name in ("gsplat-1.5.3-cp312-cp312-linux_x86_64.whl", "a-1-py3-none-any.whl"):
        (folder / name).touch()
    return folder


def test_takes_packages_from_the_folder_alone(pip, wheels, tmp_path):
    assert tool.install(tmp_path / "venv", wheels, small=False) == 0
    install, kernels = pip.calls
    assert install[:6] == [sys.executable, "-m", "pip", "--python", str(tmp_path / "venv/bin/python"), "install"]
    assert install[6:9] == ["--no-index", "--find-links", str(wheels)]
    names = {word.split(">")[0].split("[")[0] for word in install[9:]}
    assert {"torch", "gsplat", "pytest", "hypothesis", "beartype", "imageio-ffmpeg"} <= names
    assert not {"pytest-xdist", "ruff", "selenium"} & names
    assert kernels[-1] == tool.KERNELS


def test_takes_the_whole_folder_where_a_dependency_is_missing(pip, wheels, tmp_path):
    pip.fails.add("--find-links")
    assert tool.install(tmp_path / "venv", wheels, small=True) == 0
    expected = [str(wheels / name) for name in ("a-1-py3-none-any.whl", "gsplat-1.5.3-cp312-cp312-linux_x86_64.whl")]
    assert pip.calls[1][6:] == ["--no-index", "--no-deps", *expected] and len(pip.calls) == 2


def test_a_gsplat_without_kernels_gives_way_to_the_folders(pip, wheels, tmp_path):
    pip.fails.add(tool.KERNELS)
    assert tool.install(tmp_path / "venv", wheels, small=False) == 0
    wheel = str(wheels / "gsplat-1.5.3-cp312-cp312-linux_x86_64.whl")
    assert pip.calls[-1][6:] == ["--no-index", "--no-deps", "--force-reinstall", wheel]


def test_what_cannot_be_installed_is_a_failure(pip, wheels, tmp_path):
    pip.fails.add("--no-index")
    assert tool.install(tmp_path / "venv", wheels, small=False) == 1


def test_a_full_check_wants_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="finds no NVIDIA GPU here; --small goes through on a CPU"):
        tool.look(small=False)
    assert tool.look(small=True)["torch"] == torch.__version__


@pytest.fixture
def gpu(monkeypatch):
    """A GPU as far as it is asked what it is, and no nvidia-smi."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: types.SimpleNamespace(total_memory=150 * 2**30))
    monkeypatch.setattr(tool.shutil, "which", lambda _: None)


def test_says_in_one_sentence_what_kernels_are_missing(gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "gsplat.csrc", None)
    with pytest.raises(SystemExit) as caught:
        tool.look(small=False)
    told = str(caught.value)
    assert "no compiled kernels" in told and torch.__version__ in told and "TORCH_CUDA_ARCH_LIST=9.0" in told
    assert "\n" not in told


def test_tells_what_the_gpu_is(gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "gsplat.csrc", types.ModuleType("gsplat.csrc"))
    found = tool.look(small=False)
    assert (found["device"], found["capability"], found["memory_gib"]) == ("NVIDIA H200", "9.0", 150.0)
    assert {"driver", "cuda", "torch", "gsplat", "gsdistill", "python", "devices"} <= found.keys()


def test_without_torch_it_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match=r"torch.*name a Python that has it"):
        tool.look(small=True)
