"""The types that a setting can have: those that a line of YAML can express."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gsdistill.core.errors import ConfigError
from gsdistill.settings.ramp import Ramp

__all__ = ["EXPECTED", "kinds_of"]

# How a message names the expected type.
EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
ALLOWED = "bool, int, float, str, Path, Literal, Ramp, tuple[...] or | None of these, or a frozen dataclass of such"


def kinds_of(cls: type) -> dict[str, Any]:
    """Return the resolved type of each field of a settings class.

    Raises:
        ConfigError: a field has a type that no setting can have, or whose name cannot be resolved.
    """
    place = f"{cls.__module__}.{cls.__qualname__}"
    try:
        hints = get_type_hints(cls)
    except (NameError, AttributeError, TypeError) as error:
        raise ConfigError(f"the types of the fields of {place} cannot be read: {error}") from error
    for field in dataclasses.fields(cls):
        if "pick" not in field.metadata and not _can_be(hints[field.name]):
            kind = inspect.formatannotation(hints[field.name])
            raise ConfigError(f"{place}.{field.name} is of type {kind}, which no setting can be; allowed: {ALLOWED}")
    return hints


def _can_be(kind: Any) -> bool:
    origin = get_origin(kind)
    if origin in (Union, UnionType, tuple):
        return all(map(_can_be, get_args(kind)))
    return origin in (Literal, Mapping) or kind in (*EXPECTED, Ramp, NoneType, ...) or dataclasses.is_dataclass(kind)
