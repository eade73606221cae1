"""What one has to read to add a distillation method: files, lines and their number, which must not exceed 500.

    python tools/reading_list.py

The list names whole files, or the classes and functions of a file that matter; their lines are counted in the source.
A class with " (head)" counts up to its first method, "docstring" is the module's. Exit code 1: more than 500 lines, or
the source no longer has a part.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST = 500


@dataclass(frozen=True)
class Reading:
    """A file and what to read of it; no parts: all of it."""

    path: str
    why: str
    parts: tuple[str, ...] = ()


READING = (
    Reading(
        "gsdistill/distillation/base.py",
        "the interface, and what all methods share",
        ("docstring", "State", "Weighting", "Moment", "Distillation", "check_times", "dot"),
    ),
    Reading("gsdistill/distillation/csd.py", "a method as an example"),
    Reading(
        "gsdistill/core/structs.py",
        "what a method is given and gives back",
        ("Views", "Embedding (head)", "Condition", "Guidance"),
    ),
    Reading(
        "gsdistill/prior/base.py",
        "how to ask for noise",
        ("docstring", "Query", "Noise", "Prior (head)", "Prior.predict_noise", "Prior.noise"),
    ),
    Reading("gsdistill/prior/schedule.py", "noise levels", ("docstring", "NoiseSchedule")),
    Reading("gsdistill/settings/ramp.py", "settings that change over the run", ("docstring", "SYNTAX", "Ramp (head)")),
    Reading("gsdistill/settings/config.py", "ranges of settings", ("bounded",)),
    Reading("configs/shapes-csd.yaml", "a recipe as an example"),
    Reading("gsdistill/models/recipes.yaml", "where a recipe is named"),
    Reading("tests/distillation/test_csd.py", "a method's test as an example"),
    Reading(
        "tests/distillation/common.py",
        "what tests share",
        ("docstring", "told", "moment_of", "Step", "step", "flat", "normal"),
    ),
    Reading(
        "tests/distillation/test_contract.py",
        "where a new method says what it costs; the rest runs over it by itself",
        ("docstring", "Cost", "cost"),
    ),
)  # fmt: skip


def ranges(reading: Reading) -> list[tuple[int, int]]:
    """First and last line of every part, counted from 1, both included.

    Raises:
        LookupError: the file or a part is not there.
    """
    path = ROOT / reading.path
    if not path.is_file():
        raise LookupError(f"{reading.path} is not there")
    text = path.read_text(encoding="utf-8")
    if not reading.parts:
        return [(1, len(text.splitlines()))]
    found = _parts(ast.parse(text))
    missing = [part for part in reading.parts if part not in found]
    if missing:
        raise LookupError(f"{reading.path} no longer has {', '.join(missing)}")
    return [found[part] for part in reading.parts]


def total() -> int:
    """The lines of the whole list."""
    return sum(last - first + 1 for reading in READING for first, last in ranges(reading))


def _parts(tree: ast.Module) -> dict[str, tuple[int, int]]:
    """Everything of a module that has a name, and its lines with decorators."""
    found = {"docstring": _lines(tree.body[0])}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = _lines(node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: _lines(node) for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ClassDef):
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
            found |= {f"{node.name}.{item.name}": _lines(item) for item in methods}
            if methods:
                found[f"{node.name} (head)"] = (_lines(node)[0], _lines(methods[0])[0] - 1)
    return found


def _lines(node: ast.stmt) -> tuple[int, int]:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(item.lineno for item in decorators)]), node.end_lineno or node.lineno


def main() -> int:
    """Print the list; returns the exit code."""
    try:
        for reading in READING:
            places = ranges(reading)
            count = sum(last - first + 1 for first, last in places)
            where = ", ".join(f"{first}-{last}" for first, last in places)
            print(f"{count:4d}  {reading.path}: {where}\n      {reading.why}")
        lines = total()
    except LookupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{lines:4d}  lines in all, {MOST} at most")
    return 0 if lines <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
