"""The reference of the library: HTML that Sphinx builds from the docstrings.

    python tools/readme/api_reference.py
    python tools/readme/api_reference.py --check

The first form writes outputs/reference/index.html: what one imports or extends comes first, then every other module.
``--check`` writes nothing, and reads the docstrings of private functions too. In both a reference that leads nowhere is
an error, and so is a docstring that Sphinx cannot read (exit code 1). Needs the extra ``docs``.

A reference finds the names that its module sees: its own and those that it imports. Under ``Raises:`` it finds the
errors of :mod:`gsdistill.core.errors` too. Indented lines of a docstring are shown as they are, and a field or a
constant is described by the comment behind or above it, as a setting is on the command line.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import importlib
import pkgutil
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import docutils_namespace
from sphinx.util.nodes import make_refnode

import gsdistill
from gsdistill.core import errors
from gsdistill.settings.registry import names

FIRST = {
    "What one imports": ("front", "generate", "core.structs", "core.errors", "settings.ramp", "training.distiller"),
    "What one extends": (
        "distillation.base", "prior.base", "prior.schedule", "prior.prompts", "representation.base",
        "training.listener", "training.backgrounds.base", "scene.init.base", "scene.cameras.base", "scene.densify.base",
        "renderer.base",
        "export.base", "settings.config", "core.ranges", "testing",
    ),
    "Methods": tuple(f"distillation.{name.replace('-', '_')}" for name in names("gsdistill.distillation")),
    "Truth and figures": ("evaluation.truth", "evaluation.figures"),
}  # fmt: skip
SETTINGS = {
    "project": "gsdistill",
    "version": gsdistill.__version__,
    "extensions": ["sphinx.ext.autodoc"],
    "nitpicky": True,
    "default_role": "code",
    "add_module_names": False,
    "python_use_unqualified_type_names": True,
    "html_show_sourcelink": False,
    "autodoc_member_order": "bysource",
}
SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):$")
MARKS = re.compile(r"(``.+?``|`[^`]+`|^ *\* )|[*|_]")


def modules() -> list[str]:
    """Every module of the package but itself and ``__main__``, which runs when it is imported."""
    found = (module.name for module in pkgutil.walk_packages(gsdistill.__path__, "gsdistill."))
    return [name for name in found if name != "gsdistill.__main__"]


def write_pages(folder: Path, check: bool) -> None:
    """Write the page of contents, and a page for each module with what it offers, or with all that it holds."""
    groups = {title: [f"gsdistill.{name}" for name in short] for title, short in FIRST.items()}
    groups["All the others"] = sorted(set(modules()).difference(*groups.values()))
    front = [f"* :obj:`gsdistill.{name} <{home(getattr(gsdistill, name))}>`" for name in gsdistill.__all__]
    lines = ["gsdistill", "=========", "", ".. automodule:: gsdistill", "", *front, ""]
    for title, listed in groups.items():
        lines += [".. toctree::", "   :maxdepth: 1", f"   :caption: {title}", "", *(f"   {one}" for one in listed), ""]
    (folder / "index.rst").write_text("\n".join(lines), encoding="utf-8")
    for name in modules():
        ModuleAnalyzer.cache["module", name] = with_comments(name)
        members = ", ".join(held(name) if check else offered(name))
        options = [f":members: {members}"] * bool(members) + [":private-members:" if check else ":undoc-members:"]
        page = [name, "=" * len(name), "", f".. automodule:: {name}", *(f"   {option}" for option in options), ""]
        (folder / f"{name}.rst").write_text("\n".join(page), encoding="utf-8")


def offered(name: str) -> list[str]:
    """What a module offers, but for what it takes from another one of ours."""
    module = importlib.import_module(name)
    things = ((item, getattr(module, item)) for item in getattr(module, "__all__", ()))
    return [item for item, thing in things if item in held(name) or not home(thing).startswith("gsdistill.")]


def held(name: str) -> list[str]:
    """All classes and functions that a module defines."""
    return [item for item, thing in vars(importlib.import_module(name)).items() if home(thing) == f"{name}.{item}"]


def home(thing: Any) -> str:
    """The full name of a module, a class or a function; of other things nothing."""
    if isinstance(thing, ModuleType):
        return thing.__name__
    return f"{thing.__module__}.{thing.__qualname__}" if hasattr(thing, "__qualname__") else ""


def with_comments(name: str) -> ModuleAnalyzer:
    """What Sphinx reads of a source in which the comments of constants, fields and settings are marked as theirs."""
    module = importlib.import_module(name)
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    bodies = [tree.body, *(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    for node in (node for body in bodies for node in body if isinstance(node, (ast.Assign, ast.AnnAssign))):
        lines[node.end_lineno - 1] = lines[node.end_lineno - 1].replace("  # ", "  #: ")  # pyright: ignore
        above = node.lineno - 2
        while lines[above].lstrip().startswith("# "):
            lines[above] = lines[above].replace("# ", "#: ", 1)
            above -= 1
    return ModuleAnalyzer("\n".join(lines) + "\n", name, str(module.__file__))


def describe(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Turn a docstring into what Sphinx reads."""
    lines[:] = GoogleDocstring(quoted(lines), what="function", name=name, obj=thing).lines()


def quoted(lines: Sequence[str]) -> list[str]:
    """The lines, with ``::`` before those that are indented, but for sections such as ``Args:``; the others plain."""
    result: list[str] = []
    section = literal = False
    for line in lines:
        if line.strip() and not line.startswith("    "):
            result += [""] * literal
            section, literal = bool(SECTION.match(line)), False
        elif line.strip() and not (section or literal):
            result += ["", "::", ""]
            literal = True
        result.append(line if literal else plain(line))
    return result


def plain(line: str) -> str:
    """A line in which ``*``, ``|`` and ``_`` mean themselves, but for the star of a list and what is in backticks."""
    return MARKS.sub(lambda found: found[0] if found[1] else f"\\{found[0]}", line)


def loosen(app: Sphinx, page: nodes.document) -> None:
    """Let no reference take any name that ends alike, wherever it is."""
    for node in page.findall(pending_xref):
        node.attributes.pop("refspecific", None)


def resolve(app: Sphinx, env: Any, node: pending_xref, shown: nodes.TextElement) -> nodes.Node | None:
    """Where a reference leads that is no full name; None ends the build. A type of others in a signature is no link."""
    module = sys.modules.get(node.get("py:module") or "")
    places = [meaning(node.get("py:class") or "", module), module, builtins, *[errors] * (node["reftype"] == "exc")]
    near = (thing for place in places if (thing := meaning(node["reftarget"], place)) is not None)
    found = next(near, None) or far(node["reftarget"])
    known, name = env.get_domain("py").objects, home(found)
    if name in known:
        return make_refnode(app.builder, node["refdoc"], known[name].docname, known[name].node_id, shown, name)
    ours = name.startswith("gsdistill.")
    others = (found is not None and not ours) or elsewhere(node["reftarget"])
    return shown if "refexplicit" not in node or others else None


def elsewhere(name: str) -> bool:
    """Whether a full name, perhaps with types in brackets, is of something outside of gsdistill."""
    try:
        return "." in name and bool(pkgutil.resolve_name(name.partition("[")[0])) and not name.startswith("gsdistill")
    except (ImportError, AttributeError, ValueError):
        return False


def far(name: str) -> Any:
    """What a full name means, without the types in its brackets; None for nothing."""
    try:
        return pkgutil.resolve_name(name.partition("[")[0]) if "." in name else None
    except (ImportError, AttributeError, ValueError):
        return None


def meaning(name: str, place: Any) -> Any:
    """What a dotted name means in a module or a class, None for nothing."""
    for part in name.split("."):
        place = getattr(place, part, None)
    return place


def build(output: Path, check: bool) -> int:
    """Build the reference, or only check it; returns the number of complaints."""
    with tempfile.TemporaryDirectory() as folder, docutils_namespace():
        pages = Path(folder) / "pages"
        pages.mkdir()
        write_pages(pages, check)
        builder, settings = ("dummy" if check else "html"), {**SETTINGS, "autodoc_inherit_docstrings": not check}
        places = pages, None, output, Path(folder) / "trees"
        app = Sphinx(*places, builder, settings, status=None, warning=sys.stderr, warningiserror=True)
        app.connect("autodoc-process-docstring", describe)
        app.connect("doctree-read", loosen)
        app.connect("missing-reference", resolve)
        app.build()
        return app._warncount


def main() -> None:
    """Build or check, and say where it lies."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only look for references that lead nowhere")
    parser.add_argument("--output", type=Path, default=Path("outputs/reference"))
    options = parser.parse_args()
    if build(options.output, options.check):
        sys.exit(1)
    print("every reference leads to something" if options.check else options.output / "index.html")


if __name__ == "__main__":
    main()
