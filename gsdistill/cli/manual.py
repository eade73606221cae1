"""Lists the settings of a command, and writes its page of help.

The help of a setting is the comment behind its field, or the comment lines above it. A settings class with many flags
names in ``COMMON`` those that ``--help`` shows; ``--help-all`` shows all, grouped by the settings class that they
belong to. Lines are as wide as the terminal, at most 100 characters.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin

from gsdistill.core.ranges import LIMITS
from gsdistill.settings.config import setting_fields
from gsdistill.settings.ramp import Ramp, shortest

__all__ = ["Setting", "alternatives_of", "field_help", "items_of", "page", "rows"]

NARROWEST = 20  # characters of a line, even if the terminal says that it is narrower
METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", Ramp: "RAMP"}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of a settings class, as the command line sees it."""

    path: tuple[str, ...]  # names from the outermost settings class to the field
    hint: Any  # the type
    value: Any  # the plain value that holds without a flag; MISSING if a flag is required
    text: str  # the help
    limits: str  # the range in words, for the help
    room: tuple[str, str]  # the group in the help: its name and what it is for
    named: bool = False  # whether the value is the name of a class
    positional: bool = False

    @property
    def flags(self) -> list[str]:
        """The flags as they are typed: ``--name``, and of a bool ``--no-name`` too."""
        *rooms, name = (part.replace("_", "-") for part in self.path)
        prefix = "--" + "".join(f"{room}." for room in rooms)
        return [prefix + name, f"{prefix}no-{name}"] if self.hint is bool else [prefix + name]

    @property
    def key(self) -> str:
        """The dotted name, under which argparse keeps what was typed."""
        return ".".join(self.path)

    @property
    def count(self) -> Any:
        """How many words the setting takes, unless it is the word ``none``: a number, or ``*`` for any number."""
        items = items_of(self.hint)
        if items is None:
            return 0 if self.hint is bool else 1
        return "*" if Ellipsis in items else len(items)


def field_help(cls: type) -> dict[str, str]:
    """Return the comment behind each field of a settings class, or the comment lines directly above it, by name."""
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


def rows(cls: type, values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[Setting]:
    """Yield the settings of a class, nested ones too; for a named setting its name, then those of the picked class."""
    texts, doc, own = field_help(cls), (cls.__doc__ or "").partition("\n")[0], inspect.get_annotations(cls)
    room = ".".join(path), doc if path and not doc.startswith(f"{cls.__name__}(") else ""
    for name, (field, hint) in sorted(setting_fields(cls).items(), key=lambda item: item[0] not in own):
        pick, value = field.metadata.get("pick"), values.get(name, field.default)
        here, text = (*path, name), texts[name]
        limits = [f"{words} {shortest(field.metadata[key])}" for key, words in LIMITS.items() if key in field.metadata]
        if value is dataclasses.MISSING and not pick and field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        inner = {"name": value} if isinstance(value, str) else value if isinstance(value, Mapping) else {}
        if pick:
            chosen = inner.get("name", field.metadata["name"])
            yield Setting(here, str, chosen, text, "", room, named=True)
            yield from rows(pick(chosen), inner, here)
        elif dataclasses.is_dataclass(hint) and hint is not Ramp:
            yield from rows(cast(type, hint), inner, here)
        elif field.metadata.get("typed", True):
            positional = bool(field.metadata.get("positional"))
            yield Setting(here, hint, value, text, " and ".join(limits), room, positional=positional)


def page(settings: Sequence[Setting], prog: str, description: str, common: Sequence[str]) -> str:
    """The page of help: all flags in groups, or only those in ``common``, in that order, and how to see the others."""
    width = max(min(shutil.get_terminal_size().columns, 100), NARROWEST)
    intro, _, more = description.partition("\n\n")
    if common:
        more = f"{more}\n\n`{prog} --help-all` shows all {len(settings)} flags.".strip()
    parser = argparse.ArgumentParser(
        prog,
        usage=" ".join([prog, *filter(None, map(_in_usage, settings)), "[FLAGS]"]),
        description=textwrap.fill(intro, width),
        epilog="\n\n".join(textwrap.fill(part, width) for part in more.split("\n\n")),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, 2, 24, width),
        add_help=False,
    )
    listed = [one for name in common for one in settings if one.key == name] or settings
    rooms: dict[tuple[str, str], Any] = {}
    for setting in sorted(listed, key=lambda one: not one.positional):
        if setting.room not in rooms:
            name, purpose = setting.room
            rooms[setting.room] = parser.add_argument_group(name or None, textwrap.fill(purpose, width - 2) or None)
        shown: dict[str, Any] = {"help": _text(setting, bool(common)).replace("%", "%%")}
        if setting.hint is bool:
            rooms[setting.room].add_argument(
                *setting.flags[: 1 + (setting.value is True)], action="store_true", **shown
            )
            continue
        shown["metavar"] = _metavar(setting).removesuffix("|none") if common else _metavar(setting)
        names = (setting.key,) if setting.positional else setting.flags
        endless = setting.count == "*" and not setting.positional
        rooms[setting.room].add_argument(*names, nargs="*" if endless else None, **shown)
    return parser.format_help()


def _in_usage(setting: Setting) -> str:
    """How the line of usage shows an argument or a required flag; other flags are left out of it."""
    name, required = _metavar(setting), setting.value is dataclasses.MISSING
    if not setting.positional:
        return f"{setting.flags[0]} {name}" if required else ""
    name += " ..." if setting.count == "*" else ""
    return name if required else f"[{name}]"


def _text(setting: Setting, brief: bool) -> str:
    """The help of a setting, with its default (unless that is none or no) and, if not ``brief``, its range."""
    value, notes = setting.value, [setting.limits] if setting.limits and not brief else []
    if value is dataclasses.MISSING:
        notes.insert(0, "required")
    elif value is not None and value is not False and _shown(value):
        notes.insert(0, f"default: {_shown(value)}")
    return f"{setting.text} ({'; '.join(notes)})" if notes else setting.text


def alternatives_of(hint: Any) -> tuple[Any, ...]:
    """The types that a setting may have: the members of a union, NoneType among them, or the one type."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def items_of(hint: Any) -> tuple[Any, ...] | None:
    """The item types of a tuple setting; None for a setting of one value."""
    return next((get_args(option) for option in alternatives_of(hint) if get_origin(option) is tuple), None)


def _metavar(setting: Setting) -> str:
    if setting.named or setting.positional:
        return "NAME" if setting.named else setting.key.upper()
    return "|".join("none" if option is NoneType else _kind(option) for option in alternatives_of(setting.hint))


def _kind(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, get_args(hint))) + "}"
    items = items_of(hint) or (hint,)
    return " ".join(
        _kind(item) if get_origin(item) is Literal else METAVARS.get(item, "PATH") for item in items if item is not ...
    )


def _shown(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return " ".join(map(_shown, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else shortest(value) if isinstance(value, float) else str(value)
