"""``gsdistill doctor``: what is installed, which device serves, which models are here, how to get what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from gsdistill import __version__
from gsdistill.files import data_path

__all__ = ["Finding", "findings", "report"]

PACKAGES = ("torch", "diffusers", "transformers", "peft", "gsplat", "numba", "matplotlib")


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    group: str
    name: str
    found: str | None  # what there is, or None
    cure: str = ""  # what to do about it


def report(console: Console) -> None:
    """Print all findings; each missing thing is followed by the command that gets it."""
    group = None
    for finding in findings():
        if finding.group != group:
            group = finding.group
            console.print(Text(group, style="bold"))
        line = Text(f"  {finding.name:<16}").append(finding.found or "missing", style="" if finding.found else "yellow")
        console.print(line, soft_wrap=True)
        if finding.cure and not finding.found:
            console.print(Text(f"  {'':<16}-> {finding.cure}"), soft_wrap=True)


def findings() -> Iterator[Finding]:
    """Look at this machine; nothing is built, downloaded or loaded."""
    yield Finding("software", "gsdistill", __version__)
    yield Finding("software", "python", f"{platform.python_version()} on {platform.platform()}")
    for name in PACKAGES:
        yield Finding("software", name, _version(name), f"pip install {name}")
    yield Finding("software", "ffmpeg", _ffmpeg(), "pip install 'imageio[ffmpeg]'")
    yield from _machine()
    yield from _models()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _ffmpeg() -> str | None:
    """Return the path of the ffmpeg that imageio will use."""
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        return None
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:
        return None


def _machine() -> Iterator[Finding]:
    import torch

    from gsdistill.device import choose, describe

    device = choose("auto")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("machine", "device", describe(device))
    yield Finding("machine", "threads", f"{torch.get_num_threads()} of torch on {cores} cores")
    extension = _gsplat_extension()
    if device.type == "cpu":
        yield Finding("machine", "gsplat kernels", str(extension or "not compiled, and not needed without a GPU"))
    else:
        cure = (
            "compiled at the first use; or a ready wheel: pip install gsplat --index-url https://docs.gsplat.studio/whl"
        )
        yield Finding("machine", "gsplat kernels", str(extension) if extension else None, cure)


def _gsplat_extension() -> Path | None:
    """Return gsplat's compiled extension, found without importing gsplat, which could start a build."""
    spec = importlib.util.find_spec("gsplat")
    folders = spec.submodule_search_locations if spec else None
    return next((file for folder in folders or () for file in sorted(Path(folder).glob("csrc*.so"))), None)


def _models() -> Iterator[Finding]:
    from huggingface_hub import constants

    from gsdistill.prior.cards import cached_source, cards

    yield Finding("models", "hub cache", str(constants.HF_HUB_CACHE))
    for name, card in cards().items():
        source = card.sources[0]
        if source.startswith("assets/"):
            folder = data_path(*source.split("/"))
            there = next(folder.glob("unet/*.safetensors"), None)
            yield Finding(
                "models",
                name,
                str(folder) if there else None,
                "install gsdistill again, its wheel holds the weights",
            )
        else:
            yield Finding("models", name, cached_source(name), f"hf download {source}")
