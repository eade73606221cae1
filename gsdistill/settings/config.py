"""Typed settings and their plain values: frozen dataclasses whose types and ranges are checked; no key is ignored.

A settings class is a frozen dataclass of bool, int, float, str, Path, Literal, Optional, tuples, :class:`Ramp`, other
settings classes, and *named* settings, whose class a name picks (``method: {name: cds, guidance_scale: 7.5}``,
or just ``method: cds``). Ranges are written on the field: ``fov: float = bounded(40.0, above=0, below=180)``.
Every mistake raises :class:`ConfigError` with the dotted path, the value, what is allowed and the nearest match.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from gsdistill.core.errors import BadFile, ConfigError, UserError, did_you_mean
from gsdistill.core.ranges import LIMITS
from gsdistill.disk.paths import expanded
from gsdistill.disk.read import brief
from gsdistill.disk.texts import check_text, letters
from gsdistill.settings.kinds import EXPECTED, kinds_of
from gsdistill.settings.ramp import Ramp, shortest
from gsdistill.settings.registry import own_name, same_name
from gsdistill.settings.yaml import dump

__all__ = [
    "defaults", "from_dict", "from_file", "merge", "name_of", "named", "setting_fields", "to_dict",
    "to_yaml", "unknown_setting", "validate",
]  # fmt: skip

T = TypeVar("T")
Pick = Callable[[str], type]

LARGEST_INTEGER = 2**63 - 1  # the largest that arrays and random generators hold


def named(pick: Pick, default: str) -> Any:
    """Return a dataclass field that holds an object of the class ``pick(name)``, by default of ``pick(default)``."""
    return dataclasses.field(default_factory=lambda: pick(default)(), metadata={"pick": pick, "name": default})


def name_of(config: object) -> str:
    """Return the name of the class of a named settings object, by which it is found again: :func:`own_name`."""
    return own_name(type(config))


def setting_fields(cls: type) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """Return (field, resolved type) for each setting of a dataclass, by name. Raises as :func:`kinds_of`."""
    hints = kinds_of(cls)
    return {f.name: (f, hints[f.name]) for f in dataclasses.fields(cls) if f.init}


def to_dict(config: Any) -> dict[str, Any]:
    """Return the settings as a mapping of plain YAML values, from which :func:`from_dict` makes an equal object."""
    plain: dict[str, Any] = {}
    for field in (f for f in dataclasses.fields(config) if f.init):
        plain[field.name] = _plain_setting(field, getattr(config, field.name))
    return plain


def _plain_setting(field: dataclasses.Field[Any], value: Any) -> Any:
    return {"name": name_of(value), **to_dict(value)} if "pick" in field.metadata else _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Ramp):
        text = str(value)
        return value.start if ":" not in text else text
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return letters(str(value)) if isinstance(value, (str, Path)) else value


def to_yaml(config: Any, ascii_only: bool = False) -> str:
    """Return the settings as YAML text; loaded again, :func:`from_dict` makes an equal object of it."""
    return dump(to_dict(config), ascii_only)


def defaults(cls: type) -> dict[str, Any]:
    """Return the plain default values of a settings class by name, of those settings that have one."""
    values: dict[str, Any] = {}
    for name, (field, _) in setting_fields(cls).items():
        if field.default is not dataclasses.MISSING:
            values[name] = _plain(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            values[name] = _plain_setting(field, field.default_factory())
    return values


def from_dict(cls: type[T], mapping: Mapping[str, Any], path: str = "") -> T:
    """Build a settings object from plain values; ``path`` is the dotted path of the mapping, for messages.

    Raises:
        ConfigError: an unknown or missing key, a wrong type, a value out of range.
    """
    known = setting_fields(cls)
    if not isinstance(mapping, Mapping):
        raise _wrong_type(path or cls.__name__, mapping, f"a mapping of {', '.join(known)}")
    for key, value in mapping.items():
        if key not in known:
            raise ConfigError(unknown_setting(f"{_under(path)}{key}", value, [_under(path) + name for name in known]))
    values = {}
    for name, (field, hint) in known.items():
        where = _under(path) + name
        if name in mapping:
            values[name] = _convert(mapping[name], hint, field.metadata, where)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"the setting '{where}' is missing")
    try:
        return cls(**values)
    except UserError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path or cls.__name__}: {error}") from error


def from_file(cls: type[T], mapping: Mapping[str, Any], file: Path | str, path: str = "") -> T:
    """Build a settings object as :func:`from_dict` does, from values that were read from ``file``.

    Raises:
        BadFile: what :func:`from_dict` refuses; it names the file.
    """
    try:
        return from_dict(cls, mapping, path)
    except ConfigError as error:
        raise BadFile(f"{file}: {error}") from error


def validate(config: T, path: str = "") -> T:
    """Check the types and ranges of a settings object and of all inside it; return it with values of the right types.

    An object made by hand may hold a text for a path, a name for an object, or a list for a tuple.

    Raises:
        ConfigError: the first value that is not allowed.
    """
    return from_dict(type(config), {name: getattr(config, name) for name in setting_fields(type(config))}, path)


def merge(defaults: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``defaults`` with the values of ``override`` in their place, nested mappings key by key.

    If both name a class (``{name: cds, ...}`` or the short form ``cds``) and the names differ, the settings of the old
    class are dropped.
    """
    merged = dict(defaults)
    for key, new in override.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(new, str) and "name" in old:
            new = {"name": new}
        if isinstance(new, Mapping) and isinstance(old, str):
            old = {"name": old}
        if isinstance(new, Mapping) and isinstance(old, Mapping):
            renamed = "name" in old and not same_name(new.get("name", old["name"]), old["name"])
            new = merge({} if renamed else old, new)
        merged[key] = new
    return merged


def unknown_setting(name: str, value: Any, allowed: Iterable[str]) -> str:
    """Return the message for a setting that does not exist."""
    allowed = list(allowed)
    hint = did_you_mean(name, allowed)
    return f"unknown setting '{name}' (value {brief(value)}).{hint} Allowed: {', '.join(allowed) or 'none'}"


def _under(path: str) -> str:
    return f"{path}." if path else ""


def _convert(value: Any, hint: Any, limits: Mapping[str, Any], path: str) -> Any:
    """Return ``value`` converted to the type ``hint``, if it is within ``limits``; ``path`` names it in errors."""
    origin = get_origin(hint)
    if "pick" in limits:
        return _convert_named(value, hint, limits["pick"], limits["name"], path)
    if origin in (Union, UnionType):
        return _convert_union(value, get_args(hint), limits, path)
    if origin is Mapping:  # its owner checks the settings in it
        if not (isinstance(value, Mapping) and all(isinstance(key, str) for key in value)):
            raise _wrong_type(path, value, "a mapping of settings")
        return dict(value)
    if origin is Literal:
        return _convert_literal(value, get_args(hint), path)
    if origin is tuple:
        return _convert_tuple(value, get_args(hint), limits, path)
    if hint is Ramp:
        return _convert_ramp(value, limits, path)
    if dataclasses.is_dataclass(hint):
        return _convert_nested(value, hint, path)
    return _convert_scalar(value, hint, limits, path)


def _convert_named(value: Any, kind: type, pick: Pick, default: str, path: str) -> Any:
    if isinstance(value, type) and issubclass(value, kind) and not inspect.isabstract(value):
        return from_dict(value, {}, path)
    if isinstance(value, kind) and dataclasses.is_dataclass(value):
        return validate(value, path)
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping):
        raise _wrong_type(path, value, "a name, or a mapping with a name")
    name = value.get("name", default)
    if not isinstance(name, str):
        raise _wrong_type(f"{path}.name", name, "text")
    return from_dict(pick(name), {key: item for key, item in value.items() if key != "name"}, path)


def _convert_union(value: Any, hints: Sequence[Any], limits: Mapping[str, Any], path: str) -> Any:
    if value is None and NoneType in hints:
        return None
    errors = []
    for hint in hints:
        if hint is not NoneType:
            try:
                return _convert(value, hint, limits, path)
            except ConfigError as error:
                errors.append(error)
    raise errors[0]


def _convert_literal(value: Any, allowed: Sequence[Any], path: str) -> Any:
    if any(value == item and type(value) is type(item) for item in allowed):
        return value
    names = [str(item) for item in allowed]
    raise ConfigError(
        f"{path} = {brief(value)} is not a choice.{did_you_mean(str(value), names)} Allowed: {', '.join(names)}"
    )


def _convert_tuple(value: Any, hints: Sequence[Any], limits: Mapping[str, Any], path: str) -> Any:
    endless = len(hints) == 2 and hints[1] is Ellipsis
    if not isinstance(value, (tuple, list)) or not (endless or len(value) == len(hints)):
        count = "a list of" if endless else f"a list of {len(hints)}"
        raise _wrong_type(path, value, f"{count} values")
    each = [hints[0]] * len(value) if endless else hints
    return tuple(
        _convert(item, hint, limits, f"{path}[{i}]") for i, (item, hint) in enumerate(zip(value, each, strict=True))
    )


def _convert_ramp(value: Any, limits: Mapping[str, Any], path: str) -> Ramp:
    if not isinstance(value, (Ramp, str, int, float)) or isinstance(value, bool):
        raise _wrong_type(path, value, "a number or a schedule such as 101:51")
    try:
        ramp = value if isinstance(value, Ramp) else Ramp.parse(value)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    for end in (ramp.start, ramp.end):
        _check_range(end, limits, path)
    return ramp


def _convert_nested(value: Any, hint: Any, path: str) -> Any:
    return validate(value, path) if isinstance(value, hint) else from_dict(hint, value, path)


def _convert_scalar(value: Any, hint: Any, limits: Mapping[str, Any], path: str) -> Any:
    names_file = hint is Path or "place" in limits  # as gsdistill.disk.paths marks a text
    accepted = (str, Path) if names_file else (int, float) if hint is float else (hint,)
    if not isinstance(value, accepted) or isinstance(value, bool) is not (hint is bool):
        raise _wrong_type(path, value, EXPECTED[hint])
    if hint in (str, Path):
        value = check_text(str(value), names_file, path)
        value = expanded(value, path) if names_file else value
    if hint is int and abs(value) > LARGEST_INTEGER:
        raise ConfigError(f"{path} = {brief(value)} is too large a whole number")
    if hint in (int, float):
        _check_range(value, limits, path)
    return hint(value)


def _check_range(value: float, limits: Mapping[str, Any], path: str) -> None:
    if not -sys.float_info.max <= value <= sys.float_info.max:
        raise ConfigError(f"{path} = {str(value)[:40]} is not a finite number")
    fits = (
        value >= limits.get("low", value),
        value <= limits.get("high", value),
        "above" not in limits or value > limits["above"],
        "below" not in limits or value < limits["below"],
    )
    if not all(fits):
        allowed = " and ".join(f"{words} {shortest(limits[key])}" for key, words in LIMITS.items() if key in limits)
        raise ConfigError(f"{path} = {value} is out of range; it must be {allowed}")


def _wrong_type(path: str, value: Any, expected: str) -> ConfigError:
    shown = "nothing" if value is None else brief(value)
    return ConfigError(f"{path} = {shown} has the wrong type; expected {expected}")
