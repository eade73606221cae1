"""``gsdistill doctor --prior``: where a model comes from, its licence, which files are needed and which are here.

Sizes are those of the files that would be loaded on this machine: half precision on an accelerator, else float32.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants

from gsdistill.core import device
from gsdistill.core.errors import UserError
from gsdistill.disk.places import cache_folder
from gsdistill.doctor.machine import Finding
from gsdistill.models import inventory
from gsdistill.models.catalogue import cards, choose_prior, find_model, is_outside
from gsdistill.models.inventory import gigabytes
from gsdistill.models.layout import chosen, lack, listing
from gsdistill.models.locate import WHICH_2, completing
from gsdistill.models.original import look
from gsdistill.models.pipelines import family_of, needed_parts
from gsdistill.models.single_file import PIPELINES
from gsdistill.prior.loading import check_model
from gsdistill.prior.own import load_class

__all__ = ["prior_findings"]


def prior_findings(name: str) -> Iterator[Finding]:
    """Look at one prior: its licence, its source, what is here, what is missing, and the command that gets it.

    The hub is asked only for names and sizes of files; if it does not answer, the card's estimate of the size is shown.

    Raises:
        ConfigError: the name is unknown, or names a class that cannot be a prior.
    """
    target = device.choose("auto")
    name, reason = choose_prior(name, target)
    group, half = f"prior {name}", target.type != "cpu"
    if is_outside(name):
        yield from _of_ones_own(group, name)
        return
    source = Path(find_model(name)[0])
    if reason:
        yield Finding(group, "chosen", reason)
    if card := cards().get(name):
        yield Finding(group, "what", card.summary)
        kind = card.prediction_type.replace("_", " ")
        yield Finding(group, "family", f"{card.pipeline}, {kind}, {card.resolution} px")
        yield Finding(group, "guidance", f"{card.guidance_scale:g} for pictures")
        yield Finding(group, "licence", card.licence)
        if card.gpu_gb:
            memory = f"about {card.gpu_gb:g} GB of a GPU for a step of 4 views in half precision; counted, not measured"
            yield Finding(group, "memory", memory)
    if source.is_dir():
        yield from _folder(group, source, half)
    elif source.is_file():
        yield from _single_file(group, source)
    else:
        yield from _from_hub(group, name, half)


def _of_ones_own(group: str, name: str) -> Iterator[Finding]:
    """A class from outside, which is imported, but no object is made of it."""
    cls = load_class(name)
    yield Finding(group, "class", f"{cls.__qualname__} of {inspect.getsourcefile(cls)}")
    yield Finding(group, "what", (cls.__doc__ or "its docstring would say").partition("\n")[0])
    yield Finding(group, "all in all", f"it has what a prior needs: --prior {name} makes it")


def _folder(group: str, folder: Path, half: bool) -> Iterator[Finding]:
    """A diffusers folder: its family, the bytes to load of each part, and whether it is complete."""
    yield Finding(group, "folder", str(folder))
    try:
        yield Finding(group, "class", family_of(folder).name)
        files = listing(folder)
        for part in needed_parts(folder):
            missing = lack(folder, files, (part,))
            needed = {} if missing else chosen(files, (part,), half)
            size = sum(size for name, size in needed.items() if name.startswith(f"{part}/"))
            yield Finding(group, part, None if missing else gigabytes(size), missing or "")
        check_model(folder, half)
        yield Finding(group, "all in all", f"complete: --prior {folder} loads it")
    except UserError as error:
        yield Finding(group, "all in all", None, str(error))


def _single_file(group: str, file: Path) -> Iterator[Finding]:
    """A checkpoint in one file: what it is, and which model's configs complete it."""
    yield Finding(group, "file", f"{file}, {gigabytes(file.stat().st_size)}")
    try:
        original = look(file)
    except UserError as error:
        yield Finding(group, "family", None, str(error))
        return
    yield Finding(group, "family", f"{PIPELINES[original.kind]}, in the original layout")
    if original.scheduler:
        yield Finding(group, "says itself", ", ".join(f"{name} {value}" for name, value in original.scheduler.items()))
    source = f"those of {config}, or of --model.config" if (config := completing(original)) else None
    yield Finding(group, "configs", source, f"name them: {WHICH_2}")
    if original.kind != "mvdream" and not original.has_vae:
        yield Finding(group, "autoencoder", None, "the file holds none: name one with --model.vae")
    try:
        yield Finding(group, "kept", f"as a folder, converted once, in {cache_folder('converted')}")
    except UserError as error:
        yield Finding(group, "kept", None, str(error))


def _from_hub(group: str, name: str, half: bool) -> Iterator[Finding]:
    """A model of the hub, named by a card or by its hub id."""
    card, needed, reason = cards().get(name), 0, None
    if card and card.gated:
        address = f"{constants.ENDPOINT}/{card.sources[0]}"
        yield Finding(group, "access", f"gated: accept the licence at {address}, then run `hf auth login`")
    if card and card.vae:
        yield Finding(group, "autoencoder", f"its own; one for float16: --model.vae {card.vae}")
    for share in inventory.find_shares(name, half):
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
        yield Finding(group, "download", f"{card.download(half) if card else 'of unknown size'}; {reason}")
        needed = max(needed, int(1e9 * card.gigabytes(half)) if card else 0)
    free = inventory.free_space(constants.HF_HUB_CACHE)
    yield Finding(group, "hub cache", f"{constants.HF_HUB_CACHE}, {gigabytes(free)} free")
    if needed > free:
        yield Finding(
            group, "space", None, f"{gigabytes(needed)} are to come; let HF_HUB_CACHE name a folder with room"
        )
