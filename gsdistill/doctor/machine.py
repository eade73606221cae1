"""``gsdistill doctor``: what is installed, which device serves, which models are here, how to get what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from gsdistill import __version__
from gsdistill.core.extras import EXTRAS, missing
from gsdistill.disk.places import data_path

if TYPE_CHECKING:
    import torch

__all__ = ["Finding", "findings", "print_findings"]

PACKAGES = ("torch", "diffusers", "transformers", "gsplat", "numba", "matplotlib")
RAN = "# tests run on Python: "  # how the line of the pins begins that lists the Pythons of the tests


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    group: str
    name: str
    found: str | None  # what is there; None if it is missing
    cure: str = ""  # what to do if it is missing


def print_findings(console: Console, findings: Iterable[Finding], lost: str = "missing") -> list[Finding]:
    """Print findings, with the cure below each that has nothing, shown as ``lost``; returns the latter."""
    group, without = None, []
    for finding in findings:
        if finding.group != group:
            group = finding.group
            console.print(Text(group, style="bold"))
        line = Text(f"  {finding.name:<16}").append(finding.found or lost, style="" if finding.found else "yellow")
        console.print(line, soft_wrap=True)
        without += [] if finding.found else [finding]
        if finding.cure and not finding.found:
            console.print(Text(f"  {'':<16}-> {finding.cure}"), soft_wrap=True)
    return without


def findings() -> Iterator[Finding]:
    """Look at this machine; nothing is built or downloaded, and no model is loaded."""
    yield Finding("software", "gsdistill", __version__)
    yield Finding("software", "python", f"{platform.python_version()} on {platform.platform()}")
    for name in PACKAGES:
        yield Finding("software", name, _version(name), f"pip install {name}")
    yield Finding("software", "versions", _compared(data_path("tools", "pins.txt")))
    yield Finding("software", "ffmpeg", _ffmpeg(), "pip install imageio-ffmpeg")
    for extra in EXTRAS:
        lacking = missing(extra)
        yield Finding("extras", extra, None if lacking else "installed", f"pip install {' '.join(lacking)}")
    yield from _machine()
    yield from _models()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _compared(pins: Path) -> str:
    """How the installed packages, and this Python, differ from those that the tests ran with, by the file of pins."""
    from packaging.requirements import Requirement  # installed with transformers

    lines = pins.read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    others = [
        f"{pin.name} {version} (tested: {str(pin.specifier).removeprefix('==')})"
        for pin in pinned
        if pin.marker is None or pin.marker.evaluate()
        if (version := _version(pin.name)) and not pin.specifier.contains(version.partition("+")[0], prereleases=True)
    ]
    python = ".".join(platform.python_version_tuple()[:2])
    ran = next((line.removeprefix(RAN).split() for line in lines if line.startswith(RAN)), [])
    differences = [] if python in ran else [f"Python {python} (tested: {', '.join(ran)})"]
    if not differences and not others:
        return "as tested"
    cure = f"; pip install -c {pins} gets the tested packages" if others else ""
    return f"not as tested: {', '.join(differences + others)}{cure}"


def _ffmpeg() -> str | None:
    """The path of the ffmpeg that writes videos, if there is one."""
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        return None
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:
        return None


def _machine() -> Iterator[Finding]:
    import torch

    from gsdistill.core.device import choose, describe, listed, refusal

    device = choose("auto")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("machine", "device", describe(device))
    if accelerator := listed():
        reason = refusal(accelerator)
        note = (
            f"cannot be used: {reason}; until its driver and torch fit it, auto is the CPU" if reason else "it computes"
        )
        yield Finding("machine", f"{accelerator}, tried", note)
    yield Finding("machine", "renderer", _renderer(device))
    if torch.backends.mps.is_available():
        note = f"--device mps, not tried by us, computes the prior on it; renderer {_renderer(torch.device('mps'))}"
        yield Finding("machine", "mps", note)
    yield Finding("machine", "threads", f"{torch.get_num_threads()} of torch on {cores} cores")
    cure = "compiled anew by every process, for a minute; let NUMBA_CACHE_DIR name a folder that can be written"
    yield Finding("machine", "numba kernels", _kept_kernels(), cure)
    extension = _gsplat_extension()
    if device.type == "cpu":
        yield Finding("machine", "gsplat kernels", str(extension or "not compiled, and not needed without a GPU"))
    else:
        cure = (
            "compiled at the first use; or a ready wheel: pip install gsplat --index-url https://docs.gsplat.studio/whl"
        )
        yield Finding("machine", "gsplat kernels", str(extension) if extension else None, cure)


def _renderer(device: torch.device) -> str:
    """Which renderer draws a scene on ``device``; it is tried, unless that would compile kernels."""
    from gsdistill.renderer.base import compiles, refusal

    if compiles(device):
        return f"{device.type}, whose kernels are compiled at the first use, for minutes"
    reason = refusal(device)
    return f"cpu ({reason})" if reason else device.type


def _kept_kernels() -> str | None:
    """Where the compiled kernels of the CPU renderer are kept; None if no folder can be written."""
    from gsdistill.renderer._bins import place

    folder = place.stats.cache_path
    return f"kept in {folder}" if folder else None


def _gsplat_extension() -> Path | None:
    """The path of gsplat's compiled extension, found without importing gsplat, which could start a build."""
    spec = importlib.util.find_spec("gsplat")
    folders = spec.submodule_search_locations if spec else None
    return next((file for folder in folders or () for file in sorted(Path(folder).glob("csrc*.so"))), None)


def _models() -> Iterator[Finding]:
    from huggingface_hub import constants

    from gsdistill.models.catalogue import cached_source, cards

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
            yield Finding("models", name, cached_source(name), f"gsdistill doctor --prior {name}")
