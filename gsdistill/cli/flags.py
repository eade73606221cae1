"""Typed settings to command-line flags: ``guidance_scale`` of ``method`` is ``--method.guidance-scale``.

argparse splits the words among the flags and hands back those that were typed and nothing else;
:mod:`gsdistill.settings.config` alone judges them, so a flag and a line of a config file get the same checks and
messages.
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

from gsdistill.cli.manual import Setting, items_of, options_of, page, rows
from gsdistill.core.errors import ConfigError, did_you_mean
from gsdistill.settings.config import from_dict
from gsdistill.settings.yaml import value_of

__all__ = ["behind", "parse", "peek", "settings_of"]

VALUE = "\0 "  # before words such as -10:60, which argparse would take for flags; no word that is typed holds a zero
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
    """Return the last value of ``--flag VALUE`` or ``--flag=VALUE``, before the flags that depend on it are known."""
    return next(iter(behind(argv, flag)), None)


def behind(argv: Sequence[str], flag: str) -> list[str]:
    """Return the words between the last ``--flag`` and the flag after it; of ``--flag=VALUE`` the value comes first."""
    values: list[str] = []
    for place, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == f"--{flag}":
            rest = list(argv[place + 1 :])
            stop = next((i for i, later in enumerate(rest) if later.startswith("-")), len(rest))
            values = [value] * bool(equals) + rest[: max(stop, not equals)]
    return values


def settings_of(cls: type[T], argv: Sequence[str], prog: str) -> T:
    """Return the settings of a class whose fields are all the flags there are; raises what :func:`parse` does."""
    return from_dict(cls, parse([(cls, {})], argv, prog, inspect.getdoc(cls) or ""))


def parse(sources: Sequence[Source], argv: Sequence[str], prog: str, description: str) -> dict[str, Any]:
    """Return the settings given in ``argv`` as a nested mapping for ``from_dict``; what is not given is not in it.

    Args:
        sources: settings classes whose fields become flags side by side, each with the plain values that stand when
            no flag is given (as ``to_dict`` writes them); a field's own default serves where a value is missing.
        argv: the words after the command.
        prog: the command's name in the help.
        description: the paragraphs above the flags.

    Raises:
        ConfigError: an unknown flag, a flag without its value, or one that is given twice with different values.
        SystemExit: help was asked for and printed (code 0).
    """
    settings = [setting for cls, values in sources for setting in rows(cls, values)]
    words = list(argv[: argv.index("--")] if "--" in argv else argv)
    if asked := {"-h", "--help", "--help-all"}.intersection(words):
        common = () if "--help-all" in asked else getattr(sources[0][0], "COMMON", ())
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
    settings_given: dict[str, Any] = {}
    for setting in (one for one in settings if one.key in typed):
        place, path = settings_given, (*setting.path, "name") if setting.named else setting.path
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = _value(typed[setting.key], setting.hint)
    return settings_given


class _Once(argparse.Action):
    """Keeps the words after a flag; others after the same flag would be lost."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if (before := getattr(namespace, self.dest, values)) != values:
            first, second = (" ".join(word.removeprefix(VALUE) for word in words) for words in (before, values))
            raise ConfigError(f"the flag '{option_string}' is given twice: '{first}' and '{second}'")
        setattr(namespace, self.dest, values)


class _Switch(argparse.Action):
    """Keeps whether the first or the second of its two flags was typed."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, option_string == self.option_strings[0])


def _word(word: str) -> str:
    """A flag with the dashes of its name; a value that begins with a dash so that argparse takes it for one."""
    name, equals, value = word.partition("=")
    if name.startswith("--"):
        return name.replace("_", "-") + equals + value
    return VALUE + word if word.startswith("-") else word


def _parts(word: str, counts: Mapping[str, Any]) -> list[str]:
    """A word for argparse; ``--flag=VALUE`` as two where more values may follow."""
    name, equals, value = word.partition("=")
    return [name, VALUE * value.startswith("-") + value] if equals and counts.get(name, 1) not in (0, 1) else [word]


def _is_none(words: Sequence[str], hint: Any) -> bool:
    return NoneType in options_of(hint) and [word.lower() for word in words] in (["none"], ["null"])


def _arguments(words: Sequence[str], settings: Sequence[Setting], prog: str) -> dict[str, Sequence[str]]:
    """Share out the words without a flag; the last argument may take any number of them."""
    shares: dict[str, Sequence[str]] = {}
    for setting in settings:
        taken, words = (words, ()) if setting.count == "*" else (words[:1], words[1:])
        if taken:
            shares[setting.key] = taken
        elif setting.value is dataclasses.MISSING:
            raise ConfigError(f"{setting.key.upper()} is missing; see {prog} --help")
    if words:
        raise ConfigError(f"unexpected argument '{words[0]}'; see {prog} --help")
    return shares


def _value(words: Any, hint: Any) -> Any:
    """Return the plain value that ``words`` write; whether it fits is for ``from_dict`` to say."""
    if isinstance(words, bool):
        return words
    words = [word.removeprefix(VALUE) for word in words]
    options, items = options_of(hint), items_of(hint)
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
