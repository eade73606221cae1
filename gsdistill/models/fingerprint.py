"""A short name for the files of a model, which changes when they change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["fingerprint"]


def fingerprint(files: Iterable[Path], *facts: object) -> str:
    """32 letters that change with the files' resolved paths, sizes and times, and with the ``facts``."""
    digest = hashlib.sha256(repr(facts).encode())
    for path in sorted(files):
        status = path.stat()
        line = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]
