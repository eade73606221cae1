"""Text as a user types it: Unicode, and for names of files any bytes but zero.

What the shell hands over in bytes that this machine's locale cannot read, Python holds as escapes (halves of pairs,
U+DC80 to U+DCFF), by which a file is found. Settings are kept in UTF-8 whatever the locale: an escape stays where the
bytes are no UTF-8.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gsdistill.core.errors import ConfigError
from gsdistill.disk.read import brief, open_file

__all__ = ["checked", "in_utf8", "letters", "shown", "utf8_name"]

NO_TEXT = re.compile("[\ud800-\udfff]")
NO_NAME = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")


def checked(text: str, names_file: bool, setting: str) -> str:
    """Return the text of a setting, the name of a file so that this locale finds it.

    Raises:
        ConfigError: it holds what no text or no name can; ``setting`` is named.
    """
    text = letters(text)
    if (NO_NAME if names_file else NO_TEXT).search(text):
        raise ConfigError(
            f"{setting} = {brief(text)} is {'no name of a file' if names_file else 'not valid Unicode text'}"
        )
    return os.fsdecode(text.encode("utf-8", "surrogateescape")) if names_file else text


def shown(text: str) -> str:
    """Return text that may hold the name of a file as Unicode that any program takes, its other bytes written out."""
    return letters(text).encode("utf-8", "backslashreplace").decode("utf-8")


def in_utf8(path: Path) -> bool:
    """Whether the bytes of a name are UTF-8."""
    return NO_TEXT.search(letters(str(path))) is None


@contextmanager
def utf8_name(path: Path) -> Iterator[Path]:
    """Yield a name of a file for libraries that take only UTF-8: its own, or that of a descriptor, open meanwhile.

    Raises:
        BadFile: the file cannot be opened, if its own name does not serve.
    """
    if in_utf8(path):
        yield path
    else:
        with open_file(path) as file:
            yield Path(f"/dev/fd/{file.fileno()}")


def letters(text: str) -> str:
    """Return text whose bytes that this locale could not read are letters where they are UTF-8."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair that stands for no byte
        return text
