"""Makes command-line flags of typed settings: ``guidance_scale`` of ``method`` is ``--method.guidance-scale``.

argparse only assigns the words to the flags, and returns the flags that were typed. :mod:`gsdistill.settings.config`
checks the values, so that flags and lines of a config get the same checks and messages.
``metadata={"positional": True}`` makes an argument without a flag. :mod:`gsdistill.cli.manual` writes the help.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, Literal, NoReturn, TypeVar, get_origin

from gsdistill.cli.manual import Setting, alternatives_of, items_of, page, rows
from gsdistill.core.errors import ConfigError, did_you_mean
from gsdistill.settings.config import from_dict
from gsdistill.settings.yaml import value_of

__all__ = ["behind", "parse_flags", "peek", "settings_of"]

VALUE = "\0 "  # put before values such as -10:60, which argparse would take for flags; typed words hold no NUL
Source = tuple[type, Mapping[str, Any]]
T = TypeVar("T")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        flag = re.search(r"argument (--[^\s/:]+)", message)
        count = re.search(r"expected (\d+) arguments", message)
        needs = f"takes {count[1]} values" if count else "lacks a value"
        needs = "takes no value" if "ignored explicit" in message else needs
        raise ConfigError(f"{f'the flag {flag[1]!r} {needs}' if flag else message}; see {self.prog} --help")


def peek(argv: Sequence[str], flag: str) -> str | None:
    """Return the last value of ``--flag VALUE`` or ``--flag=VALUE`` before the words are parsed; None without one."""
    return next(iter(behind(argv, flag)), None)


def behind(argv: Sequence[str], flag: str) -> list[str]:
    """Return the words after the last ``--flag`` up to the next flag; the VALUE of ``--flag=VALUE`` comes first."""
    values: list[str] = []
    for place, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == f"--{flag}":
            rest = list(argv[place + 1 :])
            stop = next((i for i, later in enumerate(rest) if later.startswith("-")), len(rest))
            values = [value] * bool(equals) + rest[: max(stop, not equals)]
    return values


def settings_of(cls: type[T], argv: Sequence[str], prog: str) -> T:
    """Return an object of ``cls``, whose fields are all the flags. Raises ConfigError and as :func:`parse_flags`."""
    return from_dict(cls, parse_flags([(cls, {})], argv, prog, inspect.getdoc(cls) or ""))


def parse_flags(sources: Sequence[Source], argv: Sequence[str], prog: str, description: str) -> dict[str, Any]:
    """Return the settings typed in ``argv`` as a nested mapping for ``from_dict``; settings not typed are not in it.

    Args:
        sources: settings classes whose fields become flags side by side, each with the plain values that hold without
            a flag (as ``to_dict`` writes them); where one is missing, the field's own default holds.
        argv: the words after the command.
        prog: the command's name in the help.
        description: the paragraphs above the flags.

    Raises:
        ConfigError: an unknown flag, a missing value or argument, or a flag given twice with different values.
        SystemExit: help was asked for and printed (code 0).
    """
    settings = [setting for cls, values in sources for setting in rows(cls, values)]
    words = list(argv[: argv.index("--")] if "--" in argv else argv)
    if helps := {"-h", "--help", "--help-all"}.intersection(words):
        common = () if "--help-all" in helps else getattr(sources[0][0], "COMMON", ())
        print(page(settings, prog, description, common), end="")
        raise SystemExit(0)
    parser = _Parser(prog, add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    counts = {flag: setting.count for setting in settings if not setting.positional for flag in setting.flags}
    marked = [part for word in words for part in _parts(_word(word), counts)]
    for setting in (one for one in settings if not one.positional):
        action = _Switch if setting.hint is bool else _Once
        one = setting.count not in (0, 1, "*") and _is_none(behind(marked, setting.flags[0][2:])[:1], setting.hint)
        parser.add_argument(*setting.flags, dest=setting.key, nargs=1 if one else setting.count, action=action)
    parsed, left = parser.parse_known_args(marked)
    left = [word.removeprefix(VALUE) for word in left]
    if flag := next((word for word in left if word.startswith("-")), None):
        known = [name for setting in settings if not setting.positional for name in setting.flags]
        raise ConfigError(_unknown_flag(flag, known, prog))
    arguments = [setting for setting in settings if setting.positional]
    typed = {**vars(parsed), **_arguments([*left, *argv[len(words) + 1 :]], arguments, prog)}
    nested: dict[str, Any] = {}
    for setting in (one for one in settings if one.key in typed):
        inner, path = nested, (*setting.path, "name") if setting.named else setting.path
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = _value(typed[setting.key], setting.hint)
    return nested


class _Once(argparse.Action):
    """Keeps the words after a flag, and refuses the flag again with other words, since the first would be lost."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if (before := getattr(namespace, self.dest, values)) != values:
            first, second = (" ".join(word.removeprefix(VALUE) for word in words) for words in (before, values))
            raise ConfigError(f"the flag '{option_string}' is given twice: '{first}' and '{second}'")
        setattr(namespace, self.dest, values)


class _Switch(argparse.Action):
    """Keeps True for the first of its two flags (``--name``) and False for the second (``--no-name``)."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, option_string == self.option_strings[0])


def _word(word: str) -> str:
    """A flag with dashes for underscores; a value that begins with a dash, marked as a value for argparse."""
    name, equals, value = word.partition("=")
    if name.startswith("--"):
        return name.replace("_", "-") + equals + value
    return VALUE + word if word.startswith("-") else word


def _parts(word: str, counts: Mapping[str, Any]) -> list[str]:
    """A word as argparse gets it: ``--flag=VALUE`` becomes two words where the flag takes several values."""
    name, equals, value = word.partition("=")
    return [name, VALUE * value.startswith("-") + value] if equals and counts.get(name, 1) not in (0, 1) else [word]


def _is_none(words: Sequence[str], hint: Any) -> bool:
    return NoneType in alternatives_of(hint) and [word.lower() for word in words] in (["none"], ["null"])


def _arguments(words: Sequence[str], settings: Sequence[Setting], prog: str) -> dict[str, Sequence[str]]:
    """Assign the words without a flag to the arguments in order; the last one may take any number of words."""
    shares: dict[str, Sequence[str]] = {}
    for setting in settings:
        share, words = (words, ()) if setting.count == "*" else (words[:1], words[1:])
        if share:
            shares[setting.key] = share
        elif setting.value is dataclasses.MISSING:
            raise ConfigError(f"{setting.key.upper()} is missing; see {prog} --help")
    if words:
        raise ConfigError(f"unexpected argument '{words[0]}'; see {prog} --help")
    return shares


def _value(words: Any, hint: Any) -> Any:
    """The plain value that ``words`` stand for; ``from_dict`` checks it."""
    if isinstance(words, bool):
        return words
    words = [word.removeprefix(VALUE) for word in words]
    options, items = alternatives_of(hint), items_of(hint)
    if _is_none(words, hint):
        return None
    if items is not None:
        each = items if len(items) == len(words) and Ellipsis not in items else [items[0]] * len(words)
        return [_read(word, item) for word, item in zip(words, each, strict=True)]
    return _read(words[0], options[0])


def _read(word: str, hint: Any) -> Any:
    return value_of(word) if hint in (int, float) or get_origin(hint) is Literal else word


def _unknown_flag(flag: str, known: Sequence[str], prog: str) -> str:
    flag = flag.partition("=")[0].replace("_", "-")
    begun = [name for name in known if name.startswith(flag) and len(flag) > 2]
    hint = f" Did you mean '{begun[0]}'?" if begun else did_you_mean(flag, known)
    group = [name for name in known if "." in flag and name.startswith(flag.partition(".")[0] + ".")]
    allowed = f" Allowed: {', '.join(group)}" if group else f" See {prog} --help"
    return f"unknown flag '{flag}'.{hint}{allowed}"
