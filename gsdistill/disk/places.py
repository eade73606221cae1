"""Where files lie: what ships with gsdistill, what is cached, and the folder of a prompt."""

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
    """Return a file name for a prompt: ``a-z 0-9 -`` only, 1 to ``longest`` characters.

    Text that loses letters on the way (another script, an emoji, a very long prompt) gets a short hash, so that
    different prompts keep different folders.
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
    """Return where a shipped file lies, named as in a checkout: ``configs/fast.yaml``, ``assets/shapes-prior``.

    A checkout has ``configs`` and ``assets`` next to the package; a wheel has what it ships of both in
    ``gsdistill/_data`` (``_data/configs``, ``_data/shapes-prior``). The path need not exist.
    """
    installed = PACKAGE / "_data"
    if not installed.is_dir():
        return PACKAGE.parent.joinpath(*parts)
    return installed.joinpath(*(parts[1:] if parts[0] == "assets" else parts))


def cache_folder(*parts: str) -> Path:
    """Return a folder for what can be made again, in XDG_CACHE_HOME/gsdistill or ~/.cache/gsdistill; it need not exist.

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
