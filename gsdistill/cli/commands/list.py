"""What can be chosen by name, each with a line that says what it is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from rich.console import Console

from gsdistill import distillation
from gsdistill.cli.commands.base import Command, read_command
from gsdistill.core.errors import ConfigError, did_you_mean
from gsdistill.core.terminal import terminal
from gsdistill.disk.places import data_path
from gsdistill.models import GROUP
from gsdistill.settings.registry import names, origin, summary

__all__ = ["List", "bibtex", "listing"]

PACKAGES = {
    "methods": "gsdistill.distillation",
    "inits": "gsdistill.scene.init",
    "representations": "gsdistill.representation",
    "densifiers": "gsdistill.scene.densify",
    "finishes": "gsdistill.training.finish",
    "formats": "gsdistill.export",
    "demos": "gsdistill.laboratory.demos",
    "worlds": "gsdistill.laboratory.worlds",
}

Kind = Literal[
    "methods",
    "priors",
    "inits",
    "representations",
    "densifiers",
    "finishes",
    "configs",
    "formats",
    "demos",
    "worlds",
    "all",
]
KINDS = get_args(Kind)[:-1]


@dataclass(frozen=True)
class List(Command):
    """Show what can be chosen by name: methods, priors, inits, densifiers, finishes, configs, formats and more."""

    # One of these kinds, or all of them.
    what: Kind = field(default="all", metadata={"positional": True})
    # Only what has this name.
    name: str = field(default="", metadata={"positional": True})
    # Of methods: how to cite them and gsdistill, in BibTeX.
    bibtex: bool = False

    @classmethod
    def carry_out(cls, argv: Sequence[str]) -> None:
        """Do what the words after the command's name ask for. Raises UserError."""
        listing(read_command(cls, argv), terminal())


def listing(command: List, console: Console) -> None:
    """Print one kind, or all of them under headings; or how to cite methods. Raises ConfigError: no such name."""
    if command.bibtex and command.what != "methods":
        raise ConfigError("only methods have references: gsdistill list methods --bibtex")
    sections = {kind: _rows(kind) for kind in (KINDS if command.what == "all" else (command.what,))}
    if command.name:
        known = [name for rows in sections.values() for name in rows]
        sections = {kind: {name: rows[name]} for kind, rows in sections.items() if (name := command.name) in rows}
        if not sections:
            hint = did_you_mean(command.name, known)
            raise ConfigError(f"unknown name '{command.name}'.{hint} See gsdistill list {command.what}")
    for kind, rows in sections.items():
        width = max(map(len, rows), default=0) + 2
        if command.what == "all":
            console.print(kind, style="bold")
        lines = [f"  {name:<{width}}{text}" for name, text in rows.items()]
        for line in [bibtex(rows)] if command.bibtex else lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def bibtex(methods: Iterable[str]) -> str:
    """Return BibTeX of gsdistill and of the papers in the methods' docstrings, each under the methods' names.

    The first paper of a method is its own, further ones are of its options. A method from outside has none here.
    """
    folder = Path(distillation.__file__).parent
    entries = re.split(r"\n\n(?=@)", (folder / "references.bib").read_text(encoding="utf-8").strip())
    papers = {eprint[1]: entry for entry in entries if (eprint := re.search(r"eprint = \{(.+)\}", entry))}
    users: dict[str, list[str]] = {}
    for name in methods:
        file = folder / f"{name.replace('-', '_')}.py"
        doc = ast.get_docstring(ast.parse(file.read_bytes())) if file.is_file() else None
        for paper in re.findall(r"arXiv\s+(\d{4}\.\d{5})", doc or ""):
            users.setdefault(paper, []).append(name)
    cited = [f"% {', '.join(names)}\n{papers[paper]}" for paper, names in users.items() if paper in papers]
    return "\n\n".join([entries[0], *cited])


def _rows(kind: str) -> dict[str, str]:
    """Return the names of a kind, each with a line that says what it is."""
    if kind == "priors":
        from gsdistill.models.catalogue import cards, known

        ours = cards()
        return {
            name: f"{ours[name].summary}; {ours[name].licence}" if name in ours else origin(name, GROUP)
            for name in known()
        }
    if kind in PACKAGES:
        return {name: summary(PACKAGES[kind], name) for name in names(PACKAGES[kind])}
    files = sorted(data_path("configs").glob("*.yaml"))
    return {file.stem: file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for file in files}
