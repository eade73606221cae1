"""Tensors kept on disk under a key: one safetensors file, with the whole key inside, compared when it is read.

A cache never fails a run: a file that is broken or holds another key counts as missing, and where nothing can be
written, or the account has no home folder, nothing is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from gsdistill.core.errors import BadFile, OutputError
from gsdistill.disk.places import cache_folder
from gsdistill.disk.texts import utf8_name
from gsdistill.disk.write import atomic_path

__all__ = ["file_name", "keep", "place", "recall"]


def file_name(key: str) -> str:
    """A short name of a file for ``key``."""
    return f"{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.safetensors"


def place(*parts: str) -> Path | None:
    """Where a file of the cache lies; None without a place for a cache."""
    try:
        return cache_folder(*parts)
    except OutputError:
        return None


def recall(path: Path | None, key: str) -> dict[str, Tensor] | None:
    """The tensors that :func:`keep` wrote to ``path`` under the same key, by name and on the CPU; None without any."""
    from safetensors import SafetensorError, safe_open

    if path is None:
        return None
    try:
        with utf8_name(path) as name, safe_open(name, framework="pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (BadFile, OSError, SafetensorError):
        return None


def keep(path: Path | None, key: str, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors under a key, in one piece, if there is a place and they can be written."""
    from safetensors import SafetensorError  # what a full disk is to save_file
    from safetensors.torch import save_file

    if path is None:
        return
    with contextlib.suppress(OutputError, SafetensorError), atomic_path(path) as draft:
        save_file({name: value.contiguous() for name, value in tensors.items()}, draft, {"key": key})
