"""The house in one direction: what each module may import, hold and measure, read from the source."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "gsdistill"

# A module imports only from its own room and from rooms above it.
ROOMS = (
    "core", "disk", "settings", "renderer", "worlds", "models", "prior", "point_e", "scene", "representation",
    "distillation", "training", "learning", "export", "mesh", "evaluation", "laboratory", "run", "pages", "viewer",
    "generate", "front", "testing", "sweep", "bench", "edit", "doctor", "cli", "__main__", "__init__",
)  # fmt: skip

SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py"))}
OF_ONE_ACCELERATOR = ("renderer/cuda.py", "core/device.py")


@cache
def parsed() -> dict[str, ast.Module]:
    """Return the tree of each module."""
    return {name: ast.parse(text) for name, text in SOURCES.items()}


def room(name: str) -> str:
    return name.partition("/")[0].removesuffix(".py")


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def imported(tree: ast.AST) -> set[str]:
    """Return the full names of what a module of ours imports, lazily or not."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return found


def rooms_of(tree: ast.AST) -> set[str]:
    """Return the rooms that a module imports from; ``from gsdistill import __version__`` is of none."""
    ours = {name.split(".")[1] for name in imported(tree) if name.startswith("gsdistill.")}
    return ours - {"__version__"}


def above(name: str) -> set[str]:
    """Return the rooms that a module may import from."""
    return set(ROOMS[: ROOMS.index(room(name)) + 1]) if room(name) in ROOMS else set()


def test_the_source_is_where_we_look():
    assert len(SOURCES) > 30
    assert {room(name) for name in SOURCES} <= set(ROOMS)


def test_imports_are_absolute_and_point_upwards_only():
    relative = {name: [full for full in imported(tree) if full.startswith(".")] for name, tree in parsed().items()}
    assert {name: found for name, found in relative.items() if found} == {}
    downwards = {name: rooms_of(tree) - above(name) for name, tree in parsed().items()}
    assert {name: rooms for name, rooms in downwards.items() if rooms} == {}


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("import gsdistill.cli.main", {"cli"}),
        ("from gsdistill import cli, __version__", {"cli"}),
        ("from gsdistill.prior.base import Prior", {"prior"}),
        ("def f():\n    from gsdistill.cli.main import main", {"cli"}),
        ("import torch, gsdistill_other.cli", set()),
    ],
)
def test_the_judge_sees_every_kind_of_import(source, rooms):
    assert rooms_of(ast.parse(source)) == rooms


def test_one_kind_of_accelerator_is_named_in_two_files_only():
    for name, text in SOURCES.items():
        if name not in OF_ONE_ACCELERATOR:
            words = [token.string for token in tokenize.generate_tokens(io.StringIO(text).readline)]
            assert [word for word in words if "cuda" in word.lower()] == [], name


def test_modules_are_documented_and_short():
    assert [name for name, tree in parsed().items() if not (ast.get_docstring(tree) or "").strip()] == []
    lengths = {name: len(text.splitlines()) for name, text in SOURCES.items()}
    assert {name: lines for name, lines in lengths.items() if lines > 300} == {}


def test_functions_are_short():
    every = ((name, node) for name, tree in parsed().items() for node in functions(tree))
    assert [f"{name}:{node.lineno} {node.name}" for name, node in every if length(node) > 80] == []


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function without its docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is None:
        return lines
    doc = function.body[0]
    return lines - ((doc.end_lineno or doc.lineno) - doc.lineno + 1)


def test_half_of_all_functions_fit_in_twelve_lines():
    lengths = sorted(length(node) for tree in parsed().values() for node in functions(tree))
    assert lengths[len(lengths) // 2] <= 12


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("gsdistill", "torch diffusers transformers numba viser gsplat rich"),
        ("gsdistill.cli.main", "torch diffusers transformers numba viser gsplat"),
        ("gsdistill.generate", "diffusers transformers numba viser gsplat"),
    ],
)
def test_an_import_stays_light(module, absent):
    program = f"import sys, {module}; print(*sorted(set({absent.split()!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT.parent, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
