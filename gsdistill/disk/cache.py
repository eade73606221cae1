"""A cache of tensors on disk: one safetensors file for each key. The file holds the key, which is compared on reading.

A cache never fails a run: a file that is broken or holds another key counts as missing, and if a file cannot be
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

__all__ = ["cache_path", "file_name", "keep", "recall"]


def file_name(key: str) -> str:
    """A short file name for ``key``, made of its hash."""
    return f"{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.safetensors"


def cache_path(*parts: str) -> Path | None:
    """The path of a file or folder in the user's cache; None if the account has no home folder for one."""
    try:
        return cache_folder(*parts)
    except OutputError:
        return None


def recall(path: Path | None, key: str) -> dict[str, Tensor] | None:
    """The tensors that :func:`keep` wrote to ``path`` under ``key``, by name, on the CPU; None if there are none."""
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
    """Write tensors under a key to ``path``, atomically; if ``path`` is None or cannot be written, do nothing."""
    from safetensors import SafetensorError  # save_file raises it on a full disk
    from safetensors.torch import save_file

    if path is None:
        return
    with contextlib.suppress(OutputError, SafetensorError), atomic_path(path) as draft:
        save_file({name: value.contiguous() for name, value in tensors.items()}, draft, {"key": key})
