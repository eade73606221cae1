"""Reads and writes the YAML of settings: plain YAML 1.2 scalars, no tags, no aliases, no key twice.

YAML 1.1 would silently read the schedule ``101:51`` as 6111 (base 60), ``1e-3`` as text and ``no`` as false. A few
aliases of aliases can stand for more values than any memory holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gsdistill.core.errors import BadFile
from gsdistill.disk.read import brief, read_text

__all__ = ["dump", "load_yaml", "value_of"]

LARGEST = 1 << 16  # bytes of a file; the settings of a whole run take 6,000
NAMES = {"": None, "~": None, "null": None, "true": True, "false": False}  # in lower case
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def value_of(word: str) -> str | int | float | bool | None:
    """Return the value of a word without quotes in YAML 1.2: None, True, False, a number, or the word itself.

    Raises:
        ValueError: a whole number has more digits than Python converts.
    """
    if word.lower() in NAMES and word in (word.lower(), word.upper(), word.capitalize()):
        return NAMES[word.lower()]
    if not NUMBER.fullmatch(word):
        return word
    whole = word.lstrip("+-").isdecimal()
    return int(word) if whole else float(word.lower().replace(".inf", "inf").replace(".nan", "nan"))


def dump(mapping: Mapping[str, Any], ascii_only: bool = False) -> str:
    """Return plain values as YAML text that :func:`load_yaml` reads back, with the keys in their order.

    ``ascii_only`` writes all other characters as escapes, for terminals that cannot show them.
    """
    return yaml.dump(mapping, Dumper=_Dumper, sort_keys=False, allow_unicode=not ascii_only, width=120)


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file that holds one mapping; an empty file is an empty mapping.

    Raises:
        BadFile: the file cannot be read, is not such YAML (the message names the line), or holds no mapping.
    """
    text = read_text(path, LARGEST)
    try:
        loaded = yaml.load(text, Loader=_Loader)  # a BaseLoader: only texts, lists, mappings, and what value_of returns
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadFile(f"{path}, line {mark.line + 1 if mark else 1}: not valid YAML: {error.problem}") from error
    except RecursionError as error:
        raise BadFile(f"{path}: not valid YAML: it is nested too deeply") from error
    except (ValueError, yaml.YAMLError) as error:
        raise BadFile(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, (dict, type(None))):
        raise BadFile(f"{path}: expected lines of 'name: value', found {brief(loaded)}")
    return loaded or {}


class _Loader(yaml.BaseLoader):
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            problem = "aliases are not read: write the value again"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem=f"the tag {event.tag!r} is not read", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        text = super().construct_scalar(node)
        text.encode("utf-8", "surrogateescape")  # raises ValueError for a lone surrogate that stands for no byte
        return text if node.style else value_of(text)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is given twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that a reader of YAML 1.1 or 1.2 would not take for text; writes no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Write texts with Unicode's line ends in double quotes: in single quotes a reader turns them into spaces."""
        style = '"' if any(mark in data for mark in "\x85\u2028\u2029") else "'" if NUMBER.fullmatch(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Dumper.add_representer(str, _Dumper.represent_str)
_Dumper.add_representer(list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, True))
