"""``gsdistill list``: all that can be chosen by name, each with a line that says what it is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from rich.console import Console

from gsdistill import distillation
from gsdistill.cli.commands.base import PlainCommand
from gsdistill.core.errors import ConfigError, did_you_mean
from gsdistill.disk.places import data_path
from gsdistill.models import GROUP
from gsdistill.run.prompts import prompt_lists
from gsdistill.settings.registry import names, origin, summary

__all__ = ["List", "bibtex"]

PACKAGES = {
    "methods": "gsdistill.distillation",
    "inits": "gsdistill.scene.init",
    "representations": "gsdistill.representation",
    "cameras": "gsdistill.scene.cameras",
    "densifiers": "gsdistill.scene.densify",
    "backgrounds": "gsdistill.training.backgrounds",
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
    "cameras",
    "densifiers",
    "backgrounds",
    "finishes",
    "configs",
    "prompts",
    "formats",
    "demos",
    "worlds",
    "vocabulary",
    "all",
]
KINDS = get_args(Kind)[:-1]


@dataclass(frozen=True)
class List(PlainCommand):
    """Show what can be chosen by name: methods, priors, inits, configs, lists of prompts, formats and more."""

    # One of these kinds, or all of them.
    what: Kind = field(default="all", metadata={"positional": True})
    # Only what has this name; of the vocabulary a world or a kind of words: shapes, food.
    name: str = field(default="", metadata={"positional": True})
    # Of methods: how to cite them and gsdistill, in BibTeX.
    bibtex: bool = False

    def perform(self, console: Console) -> None:
        """Print one kind, or all under headings; or the references of methods. Raises ConfigError: no such name."""
        if self.bibtex and self.what != "methods":
            raise ConfigError("only methods have references: gsdistill list methods --bibtex")
        sections = {kind: _rows(kind) for kind in (KINDS if self.what == "all" else (self.what,))}
        if self.name:
            known = [part for rows in sections.values() for name in rows for part in (name, *name.split(": "))]
            fitting = {kind: _called(self.name, rows) for kind, rows in sections.items()}
            if not (sections := {kind: rows for kind, rows in fitting.items() if rows}):
                hint = did_you_mean(self.name, known)
                raise ConfigError(f"unknown name '{self.name}'.{hint} See gsdistill list {self.what}")
        for kind, rows in sections.items():
            width = max(map(len, rows), default=0) + 2
            if self.what == "all":
                console.print(kind, style="bold")
            lines = [f"  {name:<{width}}{text}" for name, text in rows.items()]
            for line in [bibtex(rows)] if self.bibtex else lines:
                console.print(line, markup=False, highlight=False, soft_wrap=True)


def bibtex(methods: Iterable[str]) -> str:
    """Return BibTeX of gsdistill and of the papers that the methods' docstrings cite, each below the methods' names.

    The first paper of a method is its own; further ones are of its options. Methods from outside are left out.
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


def _called(name: str, rows: dict[str, str]) -> dict[str, str]:
    """The rows of this name, or of which it is a part: "objects" and "food" of "objects: food"."""
    return {one: text for one, text in rows.items() if name in (one, *one.split(": "))}


def _rows(kind: str) -> dict[str, str]:
    """The names of a kind, each with the line that says what it is."""
    if kind == "priors":
        from gsdistill.models.catalogue import cards, known

        ours = cards()
        return {
            name: f"{ours[name].summary}; {ours[name].licence}" if name in ours else origin(name, GROUP)
            for name in known()
        }
    if kind == "vocabulary":
        from gsdistill.worlds.base import world_named

        worlds = [world_named(name) for name in names("gsdistill.worlds")]
        return {
            f"{world.name}: {group}": ", ".join(words)
            for world in worlds
            for group, words in world.vocabulary().items()
        }
    if kind == "prompts":
        return prompt_lists()
    if kind in PACKAGES:
        return {name: summary(PACKAGES[kind], name) for name in names(PACKAGES[kind])}
    files = sorted(data_path("configs").glob("*.yaml"), key=lambda file: file.stem)
    return {file.stem: file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for file in files}
