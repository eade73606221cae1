"""Typed settings to command-line flags: ``guidance_scale`` of ``method`` is ``--method.guidance-scale``.

tyro lays out the flags and their help; what was typed comes back as plain values, and :mod:`gsdistill.config` alone
judges them, so a flag and a line of a config file get the same checks and the same messages. The help of a setting is
the comment behind its field, or above it; ``metadata={"positional": True}`` makes an argument without a flag.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import io
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from gsdistill.config import LIMITS, Ramp, setting_fields, shortest
from gsdistill.errors import ConfigError, did_you_mean

__all__ = ["field_help", "parse", "peek"]

METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", bool: "BOOL", Ramp: "RAMP"}


Source = tuple[type, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of a settings class, as the command line sees it."""

    name: str
    hint: Any  # its type; of a named setting, the class that is picked
    value: Any  # plain, what it is when no flag is given; MISSING where a flag is required
    text: str  # for the help
    nested: bool
    named: bool
    positional: bool


@dataclasses.dataclass(frozen=True)
class Given:
    """The words that were typed after a flag."""

    words: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Default:
    """What a setting is when no flag is given, shown in the help."""

    value: Any


def peek(argv: Sequence[str], flag: str) -> str | None:
    """Return the last value of ``--flag VALUE`` or ``--flag=VALUE``, before the flags that depend on it are known."""
    found = None
    for place, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == f"--{flag}":
            found = value if equals else next(iter(argv[place + 1 :]), None)
    return found


def parse(sources: Sequence[Source], argv: Sequence[str], prog: str, description: str) -> dict[str, Any]:
    """Return the settings given in ``argv`` as a nested mapping for ``from_dict``; what is not given is not in it.

    Args:
        sources: settings classes whose fields become flags side by side, each with the plain values that stand when
            no flag is given (as ``to_dict`` writes them); a field's own default serves where a value is missing.
        argv: the words after the command.
        prog: the command's name in the help.
        description: the paragraph above the flags.

    Raises:
        ConfigError: an unknown flag, or a flag without its value.
        SystemExit: help was asked for and printed (code 0).
    """
    import tyro

    shape = _mirror(sources)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            typed, unknown = tyro.cli(shape, prog=prog, description=description, args=argv, return_unknown_args=True)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ConfigError(_plainly(complaint.getvalue(), prog)) from None
    if unknown:
        raise ConfigError(_unknown_flag(unknown, list(_flags(sources)), prog))
    given = _given(typed, sources)
    for setting in _settings(sources):
        if setting.positional and setting.value is dataclasses.MISSING and setting.name not in given:
            raise ConfigError(f"{setting.name.upper()} is missing; see {prog} --help")
    return given


def field_help(cls: type) -> dict[str, str]:
    """Return for each field of a settings class the comment behind it, or the comment lines directly above it."""
    texts: dict[str, str] = {}
    for owner in (c for c in reversed(cls.__mro__) if dataclasses.is_dataclass(c)):
        lines = textwrap.dedent(inspect.getsource(owner)).splitlines()
        body: Any = ast.parse("\n".join(lines)).body[0]
        for node in (n for n in body.body if isinstance(n, ast.AnnAssign)):
            behind = lines[(node.end_lineno or node.lineno) - 1].encode()[node.end_col_offset or 0 :].decode().strip()
            above = []
            while not behind and lines[node.lineno - 2 - len(above)].strip().startswith("#"):
                above.insert(0, lines[node.lineno - 2 - len(above)].strip().lstrip("# "))
            texts[ast.unparse(node.target)] = behind.lstrip("# ") or " ".join(above)
    return texts


def _settings(sources: Sequence[Source]) -> Iterator[Setting]:
    for cls, values in sources:
        texts = field_help(cls)
        for name, (field, hint) in setting_fields(cls).items():
            pick, value = field.metadata.get("pick"), values.get(name, field.default)
            if pick:
                value = {"name": value} if isinstance(value, str) else value if isinstance(value, Mapping) else {}
                hint = pick(value.get("name", field.metadata["name"]))
            nested = dataclasses.is_dataclass(hint) and hint is not Ramp
            if nested:
                value = value if isinstance(value, Mapping) else {}
            elif value is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
                value = field.default_factory()
            text = " ".join(filter(None, (texts.get(name, ""), _range(field.metadata))))
            yield Setting(name, hint, value, text, nested, bool(pick), bool(field.metadata.get("positional")))


def _mirror(sources: Sequence[Source]) -> type:
    """Return a dataclass with a field per flag, whose values are :class:`Given`, :class:`Default` or bool."""
    parts: list[tuple[str, Any, Any]] = []
    for setting in _settings(sources):
        if setting.named:
            leaf = dataclasses.replace(setting, hint=str, value=setting.hint.__module__.rpartition(".")[2])
            parts.append((f"{setting.name}_name", _leaf(leaf), Default(leaf.value)))
        if setting.nested:
            inner = _mirror([(setting.hint, setting.value)])
            parts.append((setting.name, inner, dataclasses.field(default_factory=inner)))
        else:
            boolean = setting.hint is bool
            parts.append((setting.name, _leaf(setting), setting.value if boolean else Default(setting.value)))
    cls = sources[0][0]
    doc = (cls.__doc__ or "").partition("\n")[0]
    if doc.startswith(f"{cls.__name__}("):  # what dataclass writes where there is no docstring
        doc = ""
    return dataclasses.make_dataclass(cls.__name__, parts, namespace={"__doc__": doc})


def _leaf(setting: Setting) -> Any:
    """Return the annotation that makes tyro show one flag."""
    import tyro

    required = "(required)" if setting.value is dataclasses.MISSING else None
    metavar = setting.name.upper() if setting.positional else None
    shown = tyro.conf.arg(name=setting.name, metavar=metavar, help=setting.text, help_behavior_hint=required)
    if setting.hint is bool:
        return Annotated[bool, shown]
    leaf = Annotated[Any, _spec(setting.hint), shown]
    return tyro.conf.Positional[leaf] if setting.positional else leaf


def _spec(hint: Any) -> Any:
    """Return how tyro reads a setting of type ``hint``: so many words, kept as they are."""
    import tyro

    items = _items(hint)
    count: Any = 1 if items is None else "*" if Ellipsis in items else len(items)
    if isinstance(count, int) and count > 1 and NoneType in _options(hint):
        count = (1, count)
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=count,
        metavar=_metavar(hint),
        instance_from_str=lambda words: Given(tuple(words)),
        is_instance=lambda value: True,
        str_from_instance=lambda default: _shown(default),
    )


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _items(hint: Any) -> tuple[Any, ...] | None:
    """Return the item types of a tuple setting, or None for one that is a single value."""
    return next((get_args(option) for option in _options(hint) if get_origin(option) is tuple), None)


def _metavar(hint: Any) -> str:
    options = _options(hint)
    if len(options) > 1:
        return "|".join("none" if option is NoneType else _metavar(option) for option in options)
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, get_args(hint))) + "}"
    items = _items(hint)
    if items is None:
        return METAVARS.get(hint, "PATH")
    return f"[{_metavar(items[0])} ...]" if Ellipsis in items else " ".join(map(_metavar, items))


def _shown(value: Any) -> list[str]:
    if isinstance(value, Default):
        return _shown(value.value)
    if isinstance(value, (tuple, list)):
        return [text for item in value for text in _shown(item)]
    return ["none" if value is None else shortest(value) if isinstance(value, float) else str(value)]


def _range(limits: Mapping[str, Any]) -> str:
    words = [f"{text} {shortest(limits[key])}" for key, text in LIMITS.items() if key in limits]
    return f"({' and '.join(words)})" if words else ""


def _given(typed: Any, sources: Sequence[Source]) -> dict[str, Any]:
    """Return what was typed, out of an instance of the mirror of ``sources``."""
    found: dict[str, Any] = {}
    for setting in _settings(sources):
        value = getattr(typed, setting.name)
        if setting.nested:
            name = getattr(typed, f"{setting.name}_name", None)
            inner = {"name": name.words[0]} if isinstance(name, Given) else {}
            inner |= _given(value, [(setting.hint, setting.value)])
            if inner:
                found[setting.name] = inner
        elif isinstance(value, Given):
            found[setting.name] = _value(value.words, setting.hint)
        elif setting.hint is bool and value != setting.value:
            found[setting.name] = value
    return found


def _value(words: Sequence[str], hint: Any) -> Any:
    """Return the plain value that ``words`` write; whether it fits is for ``from_dict`` to say."""
    options, items = _options(hint), _items(hint)
    if NoneType in options and [word.lower() for word in words] in (["none"], ["null"]):
        return None
    if items is not None:
        each = [items[0]] * len(words) if Ellipsis in items else items
        return [_scalar(word, item) for word, item in zip(words, each, strict=False)]
    return _scalar(words[0], options[0])


def _scalar(word: str, hint: Any) -> Any:
    kinds = (int, float) if hint in (int, float) or get_origin(hint) is Literal else ()
    for kind in kinds:
        with contextlib.suppress(ValueError):
            return kind(word)
    return word


def _flags(sources: Sequence[Source], prefix: str = "--") -> Iterator[str]:
    for setting in _settings(sources):
        name = setting.name.replace("_", "-")
        if not setting.positional and (setting.named or not setting.nested):
            yield prefix + name
        if setting.hint is bool:
            yield f"{prefix}no-{name}"
        if setting.nested:
            yield from _flags([(setting.hint, setting.value)], f"{prefix}{name}.")


def _unknown_flag(unknown: Sequence[str], known: Sequence[str], prog: str) -> str:
    flag = next((word for word in unknown if word.startswith("-")), None)
    if flag is None:
        return f"unexpected argument '{unknown[0]}'; see {prog} --help"
    flag = flag.partition("=")[0].replace("_", "-")
    group = [name for name in known if "." in flag and name.startswith(flag.partition(".")[0] + ".")]
    allowed = f" Allowed: {', '.join(group)}" if group else f" See {prog} --help"
    return f"unknown flag '{flag}'.{did_you_mean(flag, known)}{allowed}"


def _plainly(complaint: str, prog: str) -> str:
    """Return what tyro framed as one line; flags and values are judged by us, so it is about a value that lacks."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m|[│|╭╮╰╯─]", " ", complaint).split())
    flag = re.search(r"argument '(--[^']+)'", text)
    return f"the flag '{flag[1]}' lacks a value; see {prog} --help" if flag else text or f"see {prog} --help"
