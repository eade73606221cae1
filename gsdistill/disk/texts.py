"""Texts that users type: Unicode, or, for file names, any bytes but NUL.

Python holds bytes of the command line that the locale cannot decode as lone surrogates (U+DC80 to U+DCFF), and finds
files by them. Settings are kept in UTF-8 whatever the locale, so only bytes that are not UTF-8 stay surrogates.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gsdistill.core.errors import ConfigError
from gsdistill.disk.read import brief, open_file

__all__ = ["as_unicode", "check_text", "in_utf8", "letters", "utf8_name"]

NO_TEXT = re.compile("[\ud800-\udfff]")
NO_NAME = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")


def check_text(text: str, names_file: bool, setting: str) -> str:
    """Return the text of a setting; a file name in the form by which this locale finds the file.

    Raises:
        ConfigError: a text has lone surrogates, or a file name has such as stand for no byte, or a NUL. The message
            names ``setting``.
    """
    text = letters(text)
    if (NO_NAME if names_file else NO_TEXT).search(text):
        raise ConfigError(
            f"{setting} = {brief(text)} is {'no name of a file' if names_file else 'not valid Unicode text'}"
        )
    return os.fsdecode(text.encode("utf-8", "surrogateescape")) if names_file else text


def as_unicode(text: str) -> str:
    """Return a text that may hold a file name as valid Unicode; bytes that are not UTF-8 are written as escapes."""
    return letters(text).encode("utf-8", "backslashreplace").decode("utf-8")


def in_utf8(path: Path) -> bool:
    """Whether the bytes of a path are UTF-8."""
    return NO_TEXT.search(letters(str(path))) is None


@contextmanager
def utf8_name(path: Path) -> Iterator[Path]:
    """Yield a path to a file for libraries that accept only UTF-8: its own, or that of a descriptor, open in the block.

    Raises:
        BadFile: the path is not UTF-8 and the file cannot be opened.
    """
    if in_utf8(path):
        yield path
    else:
        with open_file(path) as file:
            yield Path(f"/dev/fd/{file.fileno()}")


def letters(text: str) -> str:
    """Return the text with bytes that the locale could not decode turned into letters, if they are UTF-8."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text
