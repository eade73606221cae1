"""The dialect of YAML that settings are written in: plain YAML 1.2 scalars, no tags, no aliases, no key given twice.

YAML 1.1 would read the schedule ``101:51`` as 6111 (base 60), ``1e-3`` as text and ``no`` as false, without a word.
A few aliases of aliases stand for more values than any memory holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar

import yaml

from gsdistill.core.errors import BadFile
from gsdistill.disk.read import brief, read_text

__all__ = ["dump", "load_yaml"]

LARGEST = 1 << 16  # bytes of a file; those of a whole run are 6,000


def dump(mapping: Mapping[str, Any], ascii_only: bool = False) -> str:
    """Return plain values as YAML text, keys in their own order, that :func:`load_yaml` reads back.

    ``ascii_only`` writes all other letters as escapes, for a terminal that has none of them.
    """
    return yaml.dump(mapping, Dumper=_Dumper, sort_keys=False, allow_unicode=not ascii_only, width=120)


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file that holds one mapping; an empty file is an empty mapping.

    Raises:
        BadFile: the file cannot be read, is no YAML (the line is named), or holds no mapping.
    """
    text = read_text(path, LARGEST)
    try:
        loaded = yaml.load(text, Loader=_Loader)  # a SafeLoader that knows fewer tags
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadFile(f"{path}, line {mark.line + 1 if mark else 1}: not valid YAML: {error.problem}") from error
    except RecursionError as error:
        raise BadFile(f"{path}: not valid YAML: it is nested too deeply") from error
    except (ValueError, yaml.YAMLError) as error:
        raise BadFile(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, (dict, NoneType)):
        raise BadFile(f"{path}: expected lines of 'name: value', found {brief(loaded)}")
    return loaded or {}


class _Loader(yaml.SafeLoader):
    """Builds null, booleans, numbers, text, lists and mappings, and nothing else."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}
    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "float", "seq", "map", "str")
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases are not read: write the value again", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        text = super().construct_scalar(node)
        text.encode("utf-8", "surrogateescape")  # a ValueError: an escape of half a pair is neither letter nor byte
        return text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is given twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever a reader of YAML 1.1 or of 1.2 would take for something else than text; writes no aliases."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = dict(yaml.SafeDumper.yaml_implicit_resolvers)

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Unicode's own line ends are escaped: in single quotes a reader folds them into spaces."""
        style = '"' if any(mark in data for mark in "\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
for _kind, _pattern, _first in (
    ("null", re.compile(r"(~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"[-+]?[0-9]+$"), list("-+0123456789")),
    ("float", FLOAT, list("-+0123456789.")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", _pattern, _first)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))
_Dumper.add_representer(str, _Dumper.represent_str)
_Dumper.add_representer(list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, True))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))
_Loader.add_constructor("tag:yaml.org,2002:bool", lambda loader, node: node.value.lower() == "true")
