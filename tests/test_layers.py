"""The house in one direction: what each module may import, hold and measure, read from the source."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "gsdistill"

# A module imports only from its own room and from rooms above it.
ROOMS = (
    "core", "disk", "settings", "worlds", "models", "prior", "point_e", "scene", "renderer", "representation",
    "distillation", "training", "learning", "export", "mesh", "evaluation", "laboratory", "run", "pages", "viewer",
    "generate", "front", "testing", "sweep", "bench", "edit", "doctor", "cli", "__main__", "__init__",
)  # fmt: skip

MODULES = sorted(ROOT.rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]
every_module = pytest.mark.parametrize("path", MODULES, ids=NAMES)


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


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


def test_the_source_is_where_we_look():
    assert len(MODULES) > 30
    assert {room(path) for path in MODULES} <= set(ROOMS)


@every_module
def test_imports_point_upwards_only(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [name for name in imported(tree) if name.startswith(".")], "imports are absolute"
    allowed = ROOMS[: ROOMS.index(room(path)) + 1] if room(path) in ROOMS else ()
    assert rooms_of(tree) <= set(allowed)


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


@every_module
def test_one_kind_of_accelerator_is_named_in_two_files_only(path):
    if str(path.relative_to(ROOT)) in ("renderer/cuda.py", "core/device.py"):
        return
    words = [token.string for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)]
    assert not [word for word in words if "cuda" in word.lower()]


@every_module
def test_modules_are_documented_and_short(path):
    text = path.read_text(encoding="utf-8")
    assert (ast.get_docstring(ast.parse(text)) or "").strip()
    assert len(text.splitlines()) <= 300


@every_module
def test_functions_are_short(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    long = {node.name: length(node) for node in functions if length(node) > 80}
    assert not long


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function without its docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is None:
        return lines
    doc = function.body[0]
    return lines - ((doc.end_lineno or doc.lineno) - doc.lineno + 1)


def test_half_of_all_functions_fit_in_twelve_lines():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in MODULES]
    lengths = sorted(length(node) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
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
