"""Where files lie: what ships with gsdistill, the user's cache, and the folder names of prompts."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from pathlib import Path

from gsdistill.core.errors import OutputError

__all__ = ["cache_folder", "data_path", "slug"]


PACKAGE = Path(__file__).resolve().parents[1]


def slug(prompt: str, longest: int = 80) -> str:
    """Return a file name for a prompt: 1 to ``longest`` characters of ``a-z 0-9 -``.

    If letters, digits or symbols are lost (another script, an emoji, a very long prompt), a short hash is added, so
    that different prompts keep different folders.
    """
    plain = _plain(prompt)
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    lost = any(
        unicodedata.category(letter)[0] in "LNS" and not re.search("[a-z0-9]", _plain(letter)) for letter in prompt
    )
    if words and not lost and len(words) <= longest:
        return words
    digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{words[: longest - 9].strip('-') or 'prompt'}-{digest}"


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()


def data_path(*parts: str) -> Path:
    """Return the path of a shipped file, as named in a checkout: ``configs/csd-paper.yaml``, ``assets/shapes-prior``.

    In a checkout ``configs`` and ``assets`` are next to the package; a wheel has its share of both in
    ``gsdistill/_data`` (``_data/configs``, ``_data/shapes-prior``). The path need not exist.
    """
    installed = PACKAGE / "_data"
    if not installed.is_dir():
        return PACKAGE.parent.joinpath(*parts)
    return installed.joinpath(*(parts[1:] if parts[0] == "assets" else parts))


def cache_folder(*parts: str) -> Path:
    """Return a path in the user's cache, XDG_CACHE_HOME/gsdistill or ~/.cache/gsdistill; it need not exist.

    Raises:
        OutputError: this account has no home folder.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        base = root if root.is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # no HOME, and no entry among the accounts
        base = root
    if not base.is_absolute():
        raise OutputError("there is no home folder to keep a cache in; set XDG_CACHE_HOME to a folder")
    return base.joinpath("gsdistill", *parts)
