"""The figures of the house: how its rooms hang together and how long its code is, as a Markdown table.

    python tools/readme/house.py                   of the folder that one stands in
    python tools/readme/house.py 666cd58 main .    a column each: a folder as it is, a commit of this repository

Only ``*.py`` below gsdistill/ (the package), tools/ and tests/ is read, and the size of README.md; nothing is checked
out or imported. What each row counts:

* rooms: folders and modules directly in gsdistill/, ``__init__`` and ``__main__`` among them.
* rooms at all levels: folders with a module in them, however deep, and the modules directly in gsdistill/.
* loose modules: modules directly in gsdistill/ other than ``__init__`` and ``__main__``.
* arrows: pairs A -> B of two rooms where a module of A imports one of B, at its top or inside a function. Imports under
  ``if TYPE_CHECKING:`` are left out, as are modules that are only named in a string. ``from a.b import c`` is an import
  of the module ``a.b.c`` where there is one, else of ``a.b``.
* arrows at all levels: the same between rooms of all levels, where a module belongs to the folder that it lies in.
* circles: sets of more than one module of the package each of which reaches every other by such imports, that is
  strongly connected components; their members stand under the table.
* modules, and the longest: files of the package, and the lines of the longest of them.
* function median, p90, max: lines of the package's functions and methods, nested ones too, from ``def`` to the last
  line without the docstring; p90 is the least length that nine in ten functions do not exceed.
* functions with 7 or more parameters: of the package; ``self`` and ``cls`` are not counted, ``*args`` are one.
* names defined twice or more: names of functions and classes, without a leading underscore, that stand at the top level
  of two or more of the package's modules.
* package, tools, tests: lines of all Python files there; ``code`` leaves out lines that hold nothing but blanks, a
  comment or a docstring.
* test functions: functions and methods of tests/ called ``test_...``; one that runs over many cases is one.
* README bytes: the size of README.md, 0 where there is none.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import sys
import tarfile
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

DOORS = ("__init__", "__main__")
PACKAGE, PARTS = "gsdistill", ("gsdistill", "tools", "tests")
SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
Function = (ast.FunctionDef, ast.AsyncFunctionDef)
Documented = (ast.Module, ast.ClassDef, *Function)


def read(place: str) -> dict[str, bytes]:
    """Return README.md and the Python files of a folder or of a commit, by path.

    Raises:
        LookupError: there is neither a folder nor a commit of that name, or it has no package.
    """
    if (folder := Path(place)).is_dir():
        paths = [folder / "README.md", *(path for part in PARTS for path in (folder / part).rglob("*.py"))]
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if path.is_file()}
    else:
        done = subprocess.run(["git", "archive", "--format=tar", place], capture_output=True)
        if done.returncode:
            raise LookupError(f"{place} is neither a folder nor a commit of the repository here")
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            opened = {member.name: archive.extractfile(member) for member in archive}
            files = {name: file.read() for name, file in opened.items() if file}
    kept = {n: data for n, data in files.items() if n == "README.md" or (n.endswith(".py") and _part(n) in PARTS)}
    if not any(_part(name) == PACKAGE for name in kept):
        raise LookupError(f"{place} has no {PACKAGE}/ with modules in it")
    return kept


def _part(name: str) -> str:
    return name.partition("/")[0]


def module_name(path: str) -> str:
    """``gsdistill/prior/base.py`` is ``gsdistill.prior.base``; a folder's ``__init__.py`` is the folder."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: str, tree: ast.Module, modules: Iterable[str]) -> set[str]:
    """The other modules among ``modules`` that a module imports, at its top or later."""
    found: set[str] = set()
    for node in _run(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = path.removesuffix(".py").split("/")[: -node.level] if node.level else []
            source = ".".join([*above, *(node.module or "").split(".")]).strip(".")
            found |= {name if (name := f"{source}.{alias.name}") in modules else source for alias in node.names}
    return (found & set(modules)) - {module_name(path)}


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING:``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from (part for other in child.orelse for part in (other, *_run(other)))
        else:
            yield child
            yield from _run(child)


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one member, each sorted, the largest first."""
    reached = {name: _reach(graph, name) for name in graph}
    sets = {frozenset(other for other in reached[name] if name in reached[other]) for name in graph}
    return sorted((sorted(members) for members in sets if len(members) > 1), key=lambda it: (-len(it), it))


def _reach(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen, waiting = set(), [start]
    while waiting:
        new = graph[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its docstring."""
    return (function.end_lineno or function.lineno) - function.lineno + 1 - len(_docstring(function))


def _docstring(node: ast.AST) -> range:
    """The lines of a module's, class's or function's docstring."""
    if not isinstance(node, Documented) or ast.get_docstring(node, clean=False) is None:
        return range(0)
    return range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)


def code_lines(text: str, tree: ast.Module) -> int:
    """The lines that hold more than blanks, a comment or a docstring."""
    tokens = (token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in SILENT)
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    return len(lines - {line for node in ast.walk(tree) for line in _docstring(node)})


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many parameters a function has, ``self`` and ``cls`` aside."""
    a = function.args
    named = [*a.posonlyargs, *a.args, *a.kwonlyargs, *(one for one in (a.vararg, a.kwarg) if one)]
    return sum(one.arg not in ("self", "cls") for one in named)


def measure(files: Mapping[str, bytes]) -> tuple[dict[str, str], list[list[str]]]:
    """Return the rows of the table by name, and the circles.

    Raises:
        LookupError: a file is no Python.
    """
    texts = {path: data.decode("utf-8", "replace") for path, data in files.items() if path.endswith(".py")}
    trees = {path: _parse(path, text) for path, text in texts.items()}
    ours = {path: tree for path, tree in trees.items() if _part(path) == PACKAGE}
    modules = {module_name(path): path for path in ours}
    graph = {name: imports(path, ours[path], modules) for name, path in modules.items()}
    first, deep = ({name: room(path) for name, path in modules.items()} for room in (_first, _deep))
    functions = [node for tree in ours.values() for node in ast.walk(tree) if isinstance(node, Function)]
    sizes = sorted(length(function) for function in functions) or [0]
    tops = Counter(name for tree in ours.values() for name in _names(tree))
    tests = [node for path, tree in trees.items() if _part(path) == "tests" for node in ast.walk(tree)]
    longest = max(ours, key=lambda path: len(texts[path].splitlines()))
    found = circles(graph)
    rows = {
        "rooms": len(set(first.values())),
        "rooms at all levels": len(set(deep.values())),
        "loose modules": sum(path.count("/") == 1 and Path(path).stem not in DOORS for path in ours),
        "arrows": _arrows(graph, first),
        "arrows at all levels": _arrows(graph, deep),
        "circles": len(found),
        "modules": len(ours),
        "the longest": f"{len(texts[longest].splitlines())} ({longest})",
        "function median": sizes[(len(sizes) - 1) // 2],
        "function p90": sizes[-(-9 * len(sizes) // 10) - 1],
        "function max": sizes[-1],
        "functions with 7 or more parameters": sum(parameters(function) >= 7 for function in functions),
        "names defined twice or more": sum(count > 1 for count in tops.values()),
    }
    for name, part in (("package", PACKAGE), ("tools", "tools"), ("tests", "tests")):
        mine = [path for path in texts if _part(path) == part]
        rows[f"{name}: lines"] = sum(len(texts[path].splitlines()) for path in mine)
        rows[f"{name}: code"] = sum(code_lines(texts[path], trees[path]) for path in mine)
    rows["test functions"] = sum(isinstance(node, Function) and node.name.startswith("test_") for node in tests)
    rows["README bytes"] = len(files.get("README.md", b""))
    return {name: f"{value:,}" if isinstance(value, int) else value for name, value in rows.items()}, found


def _parse(path: str, text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise LookupError(f"{path}, line {error.lineno}: {error.msg}") from error


def _names(tree: ast.Module) -> set[str]:
    """The public functions and classes at a module's top level."""
    defined = {node.name for node in tree.body if isinstance(node, (*Function, ast.ClassDef))}
    return {name for name in defined if not name.startswith("_")}


def _first(path: str) -> str:
    """The room of a module at the first level."""
    return path.split("/")[1].removesuffix(".py")


def _deep(path: str) -> str:
    """The folder of a module, or the module itself where that is the package's own folder."""
    return _first(path) if path.count("/") == 1 else path.rpartition("/")[0]


def _arrows(graph: Mapping[str, set[str]], room: Mapping[str, str]) -> int:
    """How many pairs of different rooms the imports make."""
    pairs = {(room[name], room[other]) for name, others in graph.items() for other in others}
    return sum(a != b for a, b in pairs)


def main(words: list[str]) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("places", nargs="*", default=["."], help="folders, or commits of the repository here")
    places = parser.parse_args(words).places
    try:
        measured = [measure(read(place)) for place in places]
    except LookupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join([f"| | {' | '.join(places)} |", f"|---|{'---|' * len(places)}"]))
    for name in measured[0][0]:
        print(f"| {name} | {' | '.join(rows[name] for rows, _ in measured)} |")
    for place, (_, found) in zip(places, measured, strict=True):
        for members in found:
            print(f"\ncircle in {place}: {', '.join(members)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
