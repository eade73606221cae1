"""Settings that are paths: makes them absolute, so that they mean the same from every working directory.

They are those of type Path, and texts that may be a path: a model is a name, a hub id or a path; a class from outside
may lie in a file, as in ``./mine.py:Mine``.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gsdistill.core.errors import ConfigError

__all__ = ["absolute", "anchored", "anchored_text", "expanded", "file_of", "may_be_path", "paths_in", "there"]

T = TypeVar("T")


def expanded(path: str, setting: str) -> str:
    """Return ``path`` with ``~`` or ``~user`` at its start replaced by the home folder, which not every shell does.

    ``./~user``, a folder of that name here, becomes absolute, so that the result never begins with ``~``.

    Raises:
        ConfigError: ``path`` is empty, there is no such user, or this account has no home folder. The message names
            ``setting``.
    """
    if not path:
        raise ConfigError(f"{setting} is empty: a path or a name is expected")
    if not str(Path(path)).startswith("~"):
        return path
    if not path.startswith("~"):
        return str(Path(path).absolute())
    user = path.partition("/")[0]
    try:
        full = Path(path).expanduser()
    except (RuntimeError, ValueError):  # there is no such account, or can be none
        full = Path()
    if not full.is_absolute():
        lack = "this account has no home folder" if user == "~" else f"there is no user '{user[1:]}' on this machine"
        raise ConfigError(f"{setting} = '{path}': {lack}; write the whole path, or ./{user} for a folder of that name")
    return str(full)


def there(path: Path | str) -> bool:
    """Whether there is a file or a folder at ``path``; False for a text that cannot be a path."""
    try:
        return Path(path).exists() and bool(str(path))
    except (OSError, ValueError):
        return False


def file_of(name: str) -> str:
    """The file in a name such as ``file.py:Class``; any other text unchanged."""
    place, _, label = name.rpartition(":")
    return place if place.endswith(".py") and label.isidentifier() else name


def may_be_path(names: Callable[[], Collection[str]] = tuple) -> dict[str, Any]:
    """Return the field metadata of a text setting that may be a path; texts in ``names()`` are never paths."""
    return {"place": names}


def anchored(config: T, under: str = "") -> T:
    """Return the settings with every path absolute, also those in texts that may be a path, if it exists.

    Links are not resolved, since their targets may have other suffixes. ``under`` is the dotted prefix of the settings'
    names, for messages.

    Raises:
        ConfigError: as :func:`expanded`.
    """
    whole: Any = config
    fields = [field for field in dataclasses.fields(whole) if field.init]
    values = {f.name: _anchored(getattr(whole, f.name), f.metadata, f"{under}{f.name}") for f in fields}
    return dataclasses.replace(whole, **values)


def anchored_text(full: str) -> str:
    """A text that may be a path, or ``file.py:Class``: made absolute if the path or the file exists, else unchanged."""
    file = full if there(full) else file_of(full)
    return f"{absolute(file)}{full[len(file) :]}" if there(file) else full


def paths_in(config: Any, under: str = "") -> Iterator[tuple[str, Path | str]]:
    """Yield the dotted name and the value of every setting that is or may be a path; a list's items one by one."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{under}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from paths_in(value, f"{name}.")
        items: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
        yield from ((name, item) for item in items if _may_be_path(item, field.metadata))


def _anchored(value: Any, metadata: Mapping[str, Any], name: str) -> Any:
    if dataclasses.is_dataclass(value):
        return anchored(value, f"{name}.")
    if isinstance(value, tuple):
        return tuple(_anchored(item, metadata, name) for item in value)
    if not _may_be_path(value, metadata):
        return value
    full = expanded(str(value), name)
    return absolute(full) if isinstance(value, Path) else anchored_text(full)


def _may_be_path(value: Any, metadata: Mapping[str, Any]) -> bool:
    named = metadata.get("place")
    return isinstance(value, Path) or (named is not None and isinstance(value, str) and value not in named())


def absolute(path: str) -> Path:
    """The absolute path; ``..`` is removed too, unless that would change the meaning, as it may behind a link."""
    whole = Path(path).absolute()
    plain = Path(os.path.normpath(whole))
    return plain if os.path.realpath(plain) == os.path.realpath(whole) else whole
