"""``gsdistill doctor``: what is installed, which device serves, which models are here, how to get what is missing.

``--prior`` looks at one model: where it comes from, how much of it is needed and how much is here, and its licence.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from gsdistill import __version__
from gsdistill.errors import UserError
from gsdistill.extras import EXTRAS, missing
from gsdistill.files import cache_folder, data_path

__all__ = ["Finding", "findings", "prior_findings", "report"]

PACKAGES = ("torch", "diffusers", "transformers", "peft", "gsplat", "numba", "matplotlib")
RAN = "# tests run on Python: "  # a line of the pins, before the Pythons on which the tests ran with them


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    group: str
    name: str
    found: str | None  # what there is, or None
    cure: str = ""  # what to do about it


def report(console: Console, found: Iterable[Finding]) -> None:
    """Print findings; each missing thing is followed by the command that gets it."""
    group = None
    for finding in found:
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
    yield Finding("software", "versions", _compared(data_path("tools", "pins.txt")))
    yield Finding("software", "ffmpeg", _ffmpeg(), "pip install 'imageio[ffmpeg]'")
    for extra in EXTRAS:
        lacking = missing(extra)
        yield Finding("extras", extra, None if lacking else "installed", f"pip install {' '.join(lacking)}")
    yield from _machine()
    yield from _models()


def prior_findings(name: str) -> Iterator[Finding]:
    """Look at one prior: its licence, its source, what of it is here, what is missing and the command that gets it.

    Only names and sizes are asked of the hub, and without an answer the card says about how large the model is.

    Raises:
        ConfigError: a name that is none.
    """
    from gsdistill import device
    from gsdistill.prior.cards import cards, choose, find

    target = device.choose("auto")
    name, reason = choose(name, target)
    group, source = f"prior {name}", Path(find(name)[0])
    if reason:
        yield Finding(group, "chosen", reason)
    if card := cards().get(name):
        yield Finding(group, "what", card.summary)
        kind = card.prediction_type.replace("_", " ")
        yield Finding(group, "family", f"{card.pipeline}, {kind}, {card.resolution} px")
        yield Finding(group, "guidance", f"{card.guidance_scale:g} for pictures")
        yield Finding(group, "licence", card.licence)
    if source.is_dir():
        yield from _folder(group, source)
    elif source.is_file():
        yield from _single_file(group, source)
    else:
        yield from _from_hub(group, name, target.type != "cpu")


def _folder(group: str, folder: Path) -> Iterator[Finding]:
    """A diffusers folder: its family, each part, and whether its weights are whole."""
    from gsdistill.prior.families import family_of, needed_parts
    from gsdistill.prior.inventory import gigabytes
    from gsdistill.prior.layout import lack, listing
    from gsdistill.prior.loading import check_model

    yield Finding(group, "folder", str(folder))
    try:
        yield Finding(group, "class", family_of(folder).__name__)
        files = listing(folder)
        for part in needed_parts(folder):
            size = sum(size for name, size in files.items() if name.startswith(f"{part}/"))
            told = lack(folder, files, (part,))
            yield Finding(group, part, None if told else gigabytes(size), told or "")
        check_model(folder)
        yield Finding(group, "all in all", f"complete: --prior {folder} loads it")
    except UserError as error:
        yield Finding(group, "all in all", None, str(error))


def _single_file(group: str, file: Path) -> Iterator[Finding]:
    """A checkpoint in one file: what it is, and whose configs it takes."""
    from gsdistill.prior.inventory import gigabytes
    from gsdistill.prior.loading import WHICH_2, completing
    from gsdistill.prior.original_layout import look
    from gsdistill.prior.single_file import PIPELINES

    yield Finding(group, "file", f"{file}, {gigabytes(file.stat().st_size)}")
    try:
        original = look(file)
    except UserError as error:
        yield Finding(group, "family", None, str(error))
        return
    yield Finding(group, "family", f"{PIPELINES[original.kind]}, in the original layout")
    if original.scheduler:
        yield Finding(group, "says itself", ", ".join(f"{name} {value}" for name, value in original.scheduler.items()))
    found = f"those of {config}, or of --model.config" if (config := completing(original)) else None
    yield Finding(group, "configs", found, f"name them: {WHICH_2}")
    if original.kind != "mvdream" and not original.has_vae:
        yield Finding(group, "autoencoder", None, "the file holds none: name one with --model.vae")
    try:
        yield Finding(group, "kept", f"as a folder, converted once, in {cache_folder('converted')}")
    except UserError as error:
        yield Finding(group, "kept", None, str(error))


def _from_hub(group: str, name: str, half: bool) -> Iterator[Finding]:
    """A card or a hub id."""
    from huggingface_hub import constants

    from gsdistill.prior.cards import cards
    from gsdistill.prior.inventory import free_space, gigabytes, shares

    card, needed, reason = cards().get(name), 0, None
    if card and card.gated:
        address = f"{constants.ENDPOINT}/{card.sources[0]}"
        yield Finding(group, "access", f"gated: accept the licence at {address}, then run `hf auth login`")
    if card and card.vae:
        yield Finding(group, "autoencoder", f"its own; one for float16: --model.vae {card.vae}")
    for share in shares(name, half):
        source = share.source or share.sources[0]
        others = ", ".join(other for other in share.sources if other != source)
        yield Finding(group, "source", f"{source}{f' (else {others})' if others else ''}")
        here = share.here()
        if share.files:
            parts = ", ".join(f"{part} {gigabytes(size)}" for part, size in share.by_part().items())
            kind = "half precision" if half else "float32"
            yield Finding(group, "files", f"{len(share.files)} for {kind}, {gigabytes(share.size)}: {parts}")
        if share.folder:
            yield Finding(group, "cached", f"all of it, in {share.folder}")
            continue
        needed += share.size - sum(here.values())
        reason = reason or share.reason
        if here:
            size = gigabytes(sum(here.values()))
            yield Finding(group, "begun", f"{len(here)} of {len(share.files)} files are in the cache, {size}")
        yield Finding(group, "cached", None, share.command(half))
    if reason:
        told = f"about {card.size_gb:g} GB in half precision, by the card" if card else "of unknown size"
        yield Finding(group, "download", f"{told}; {reason}")
        needed = max(needed, int(1e9 * card.size_gb) if card else 0)
    free = free_space(constants.HF_HUB_CACHE)
    yield Finding(group, "hub cache", f"{constants.HF_HUB_CACHE}, {gigabytes(free)} free")
    if needed > free:
        yield Finding(
            group, "space", None, f"{gigabytes(needed)} are to come; let HF_HUB_CACHE name a folder with room"
        )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _compared(pins: Path) -> str:
    """How what is installed differs from what the tests ran with: the pins, which may not have run on this Python."""
    from packaging.requirements import Requirement  # there through transformers

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
    told = [] if python in ran else [f"Python {python} (tested: {', '.join(ran)})"]
    if not told and not others:
        return "as tested"
    cure = f"; pip install -c {pins} gets the tested packages" if others else ""
    return f"not as tested: {', '.join(told + others)}{cure}"


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

    from gsdistill.device import choose, describe, listed, refusal

    device = choose("auto")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("machine", "device", describe(device))
    if accelerator := listed():
        reason = refusal(accelerator)
        told = (
            f"cannot be used: {reason}; until its driver and torch fit it, auto is the CPU" if reason else "it computes"
        )
        yield Finding("machine", f"{accelerator}, tried", told)
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


def _kept_kernels() -> str | None:
    """Return where the processor's kernels are kept once they are compiled, if anywhere."""
    from gsdistill.renderer._bins import place

    folder = place.stats.cache_path
    return f"kept in {folder}" if folder else None


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
            yield Finding("models", name, cached_source(name), f"gsdistill doctor --prior {name}")
