"""Encoded texts kept on disk by (model, text): a text encoder of gigabytes is loaded once for each new text.

One safetensors file per text in the cache folder ``embeddings/<model>``, with the text itself inside; a file that is
broken or of another text is made again. The model is told by the places, sizes and times of its files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from gsdistill.errors import OutputError
from gsdistill.files import atomic_path, cache_folder
from gsdistill.structs import Embedding

__all__ = ["cached", "fingerprint"]


def fingerprint(files: Iterable[Path], *facts: object) -> str:
    """32 letters that change with the files' resolved paths, sizes and times, and with the ``facts``."""
    digest = hashlib.sha256(repr(facts).encode())
    for path in sorted(files):
        facts_of_file = path.stat()
        digest.update(f"{path.resolve()} {facts_of_file.st_size} {facts_of_file.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def cached(model: str, texts: Sequence[str], encode: Callable[[list[str]], list[Embedding]]) -> list[Embedding]:
    """The embeddings of ``texts``, each with a batch of one, on the CPU; ``encode`` is called once for those not kept.

    A cache that cannot be written, or has no place for lack of a home folder, is done without.
    """
    try:
        folder = cache_folder("embeddings", model)
    except OutputError:
        return encode(list(texts))
    found = {text: _read(_place(folder, text), text) for text in dict.fromkeys(texts)}
    missing = [text for text, embedding in found.items() if embedding is None]
    for text, embedding in zip(missing, encode(missing) if missing else [], strict=True):
        found[text] = embedding
        _write(_place(folder, text), text, embedding)
    return [embedding for text in texts if (embedding := found[text])]


def _place(folder: Path, text: str) -> Path:
    return folder / f"{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.safetensors"


def _read(path: Path, text: str) -> Embedding | None:
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("text") != text:
                return None
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return Embedding(held["tokens"], held.get("pooled"), held.get("mask"))
    except (OSError, SafetensorError, KeyError):
        return None


def _write(path: Path, text: str, embedding: Embedding) -> None:
    held = {"tokens": embedding.tokens, "pooled": embedding.pooled, "mask": embedding.mask}
    tensors = {name: item.contiguous() for name, item in held.items() if item is not None}
    try:
        with atomic_path(path) as draft:
            save_file(tensors, draft, {"text": text})
    except OutputError:
        return
