"""A cache on disk of encoded texts, so that a text encoder of gigabytes is loaded only for new texts.

It has one safetensors file per text in the cache folder ``embeddings/<model>``, with the text inside. A file that is
broken or of another text is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gsdistill.core.structs import Embedding
from gsdistill.disk.cache import cache_path, file_name, keep, recall

__all__ = ["encode_once"]


def encode_once(model: str, texts: Sequence[str], encode: Callable[[list[str]], list[Embedding]]) -> list[Embedding]:
    """The embeddings of ``texts``, each with a batch of one, on the CPU; ``encode`` is called once for all new texts.

    ``model`` names the text encoder: see :func:`gsdistill.models.fingerprint.fingerprint`. If the cache cannot be
    written, or there is no home folder for it, nothing is kept.
    """
    places = {text: cache_path("embeddings", model, file_name(text)) for text in texts}
    recalled = {text: _recalled(path, text) for text, path in places.items()}
    missing = [text for text, embedding in recalled.items() if embedding is None]
    for text, embedding in zip(missing, encode(missing) if missing else [], strict=True):
        recalled[text] = embedding
        keep(places[text], text, {name: item for name, item in vars(embedding).items() if item is not None})
    return [embedding for text in texts if (embedding := recalled[text])]


def _recalled(path: Path | None, text: str) -> Embedding | None:
    held = recall(path, text) or {}
    return Embedding(held["tokens"], held.get("pooled"), held.get("mask")) if "tokens" in held else None
