"""The diffusers folder layout: which files of it a family needs, and whether they are all there.

A part is a folder (``unet``, ``vae``, ``text_encoder``, ...) with a config and weights; tokenizers and schedulers have
no weights. The part "" is the model's own folder, for an autoencoder alone. Weights are one safetensors file, or an
index and its shards: in full precision, as the smaller ``fp16`` variant, or as another variant if that is the only one.
Everything is decided by file names, so that the same rules serve a folder on this disk and a listing of the hub.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gsdistill.core.errors import BadFile
from gsdistill.disk.texts import in_utf8

__all__ = ["CARDS", "WeightFiles", "check_weights", "chosen", "lack", "listing", "weight_files"]

CARDS = ("model_index.json", "gsdistill.json")  # what a model says of itself
VARIANT = "fp16"
STEMS = ("diffusion_pytorch_model", "model")  # diffusers' name of weights, and transformers'
SHARD = re.compile(r"(?P<stem>\w+?)(\.(?P<a>\w+))?-(?P<number>\d{5})-of-(?P<count>\d{5})(\.(?P<b>\w+))?\.safetensors")
VARIED = re.compile(rf"({'|'.join(STEMS)})(\.safetensors\.index)?\.(?P<variant>\w+)\.(safetensors|json)")
CONFIGS = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}  # by the part's first word
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",), ("tokenizer.model",))  # one of them
PICKLED = (".bin", ".ckpt", ".pt", ".pth")
AGAIN = "install or copy the model again"
ALONE = "keep the one variant that you want in a folder of your own"
CONVERT = "convert the model where you trust it, by pipe.save_pretrained(folder, safe_serialization=True) of diffusers"


@dataclass(frozen=True)
class WeightFiles:
    """The files of one part's weights."""

    names: tuple[str, ...]
    missing: tuple[str, ...] = ()  # shards
    variant: str | None = None  # what diffusers and transformers call them by


def weight_files(names: Collection[str], half: bool) -> WeightFiles | None:
    """The weights among the file names of one part: the fp16 variant where ``half`` is wanted, else the full ones.

    If those are missing, the other kind is taken; if both are, another variant such as bf16. None: there are no weights
    at all, or only several other variants.
    """
    others = sorted({match["variant"] for name in names if (match := VARIED.fullmatch(name))} - {VARIANT})
    variants = [VARIANT, None, *others] if half else [None, VARIANT, *others]
    candidates = [files for variant in variants for stem in STEMS if (files := _variant(names, stem, variant))]
    best = min(candidates, key=lambda files: (bool(files.missing), files.variant in others), default=None)
    equal = {files.variant for files in candidates if best and bool(files.missing) == bool(best.missing)}
    return None if best and best.variant in others and len(equal) > 1 else best


def chosen(files: Mapping[str, int], parts: Sequence[str], half: bool, weights: bool = True) -> dict[str, int]:
    """Of a model's files, with their sizes, those that the parts need; without ``weights`` no weights.

    Pickled files, exports for other libraries, training leftovers and safety checkers are never among them.
    """
    wanted = [name for name in CARDS if name in files]
    for part in parts:
        inside = _inside(files, part)
        if _has_weights(part):
            best = weight_files(inside, half) if weights else None
            needed = [name for name in ("config.json", *(best.names if best else ())) if name in inside]
        else:
            needed = [name for name in inside if Path(name).suffix in (".json", ".txt", ".model")]
        wanted += [_within(part) + name for name in needed]
    return {name: files[name] for name in wanted}


def lack(place: str | Path, files: Collection[str], parts: Sequence[str], weights: bool = True) -> str | None:
    """One sentence on the first thing that the parts miss among ``files`` of ``place``; None: it is whole."""
    for part in parts:
        inside = _inside(files, part)
        config = CONFIGS.get(part.split("_")[0], "config.json")
        if config not in inside:
            return f"{place} lacks a part: {_within(part)}{config} is missing"
        if part.startswith("tokenizer") and not any(set(kind) <= inside for kind in TOKENIZERS):
            return f"{place} lacks a part: the words of {part} are missing, such as {part}/tokenizer.json; {AGAIN}"
        if weights and _has_weights(part):
            best = weight_files(inside, half=False)
            if best is None:
                return _no_weights(f"{place}/{part}".rstrip("/"), inside)
            if best.missing:
                return f"the weights {place}/{_within(part)}{best.missing[0]} are missing; {AGAIN}"
    return None


def listing(folder: Path) -> dict[str, int]:
    """Name and size of the files of a folder and of the folders in it, as the hub would list them."""
    paths = [path for depth in ("*", "*/*") for path in folder.glob(depth) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(paths)}


def check_weights(folder: Path, names: Collection[str]) -> None:
    """Refuse weights that are cut off, and files that differ from the folder's SHA256SUMS, if it has one.

    Raises:
        BadFile: with the file, and what is wrong with it.
    """
    from safetensors import SafetensorError, safe_open

    for path in (folder / name for name in names if name.endswith(".safetensors")):
        if not in_utf8(path):
            raise BadFile(f"{path}: weights are read by names in UTF-8 alone; rename the file or the folder it lies in")
        try:
            safe_open(path, framework="pt")
        except SafetensorError as error:
            if path.read_bytes()[:40].startswith(b"version https://git-lfs"):
                raise BadFile(f"{path} is a pointer of git-lfs, not the weights; run `git lfs pull` there") from error
            raise BadFile(f"the weights {path} are corrupted ({error}); {AGAIN}") from error
    for name, digest in _sums(folder):
        if not (folder / name).is_file():
            raise BadFile(f"{folder / name}, which SHA256SUMS lists, is missing; {AGAIN}")
        if _sha256(folder / name) != digest:
            raise BadFile(f"{folder / name} is not what SHA256SUMS promises; {AGAIN}")


def _variant(names: Collection[str], stem: str, variant: str | None) -> WeightFiles | None:
    """One file, or an index and its shards; the libraries put the variant's name in two places."""
    mark = f".{variant}" if variant else ""
    if (single := f"{stem}{mark}.safetensors") in names:
        return WeightFiles((single,), variant=variant)
    shards = {name: match for name in names if (match := SHARD.fullmatch(name)) and match["stem"] == stem}
    ours = {name: match for name, match in shards.items() if (match["a"] or match["b"]) == variant}
    index = f"{stem}.safetensors.index{mark}.json"
    if index not in names:
        return None
    if not ours:
        return WeightFiles((index,), (f"{stem}{mark}-*.safetensors",), variant)
    name, match = next(iter(ours.items()))
    number = f"-{match['number']}-of-"
    every = [name.replace(number, f"-{i:05d}-of-") for i in range(1, int(match["count"]) + 1)]
    return WeightFiles((index, *every), tuple(name for name in every if name not in names), variant)


def _within(part: str) -> str:
    """How the names of a part's files begin."""
    return f"{part}/" if part else ""


def _inside(files: Collection[str], part: str) -> set[str]:
    start = _within(part)
    return {name[len(start) :] for name in files if name.startswith(start) and "/" not in name[len(start) :]}


def _has_weights(part: str) -> bool:
    return part.split("_")[0] not in CONFIGS


def _no_weights(place: str, inside: Collection[str]) -> str:
    """One sentence on the files of a part that has no weights which can be read."""
    missing = f"the weights {place}/*.safetensors are missing"
    if others := sorted(name for name in inside if name.endswith(".safetensors")):
        shown = ", ".join([*others[:4], *([f"{len(others) - 4} more"] if len(others) > 4 else [])])
        return f"{missing}: there are {shown}, neither full nor fp16 nor of one variant; {ALONE}"
    if pickled := next((name for name in sorted(inside) if name.endswith(PICKLED)), None):
        name = f"{place.rpartition('/')[2]}/{pickled}"
        return f"{missing}; {name} is a pickle, which could run any code, and is not read: {CONVERT}"
    return f"{missing}; {AGAIN}"


def _sums(folder: Path) -> Iterator[tuple[str, str]]:
    path = folder / "SHA256SUMS"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        digest, _, name = line.strip().partition(" ")
        if name:
            yield name.lstrip(" *"), digest


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
