"""What can be chosen by name, each with a line that says what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from rich.console import Console

from gsdistill.cli.commands.base import Command, read_command
from gsdistill.core.terminal import terminal
from gsdistill.disk.places import data_path
from gsdistill.models import GROUP
from gsdistill.settings.registry import names, origin, summary

__all__ = ["List", "listing"]

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

    @classmethod
    def carry_out(cls, argv: Sequence[str]) -> None:
        """Do what the words after the command's name ask for. Raises UserError."""
        listing(read_command(cls, argv, "list"), terminal())


def listing(command: List, console: Console) -> None:
    """Print one kind, or all of them under headings."""
    for kind in KINDS if command.what == "all" else (command.what,):
        rows = _rows(kind)
        width = max(map(len, rows), default=0) + 2
        if command.what == "all":
            console.print(kind, style="bold")
        for name, text in rows.items():
            console.print(f"  {name:<{width}}{text}", markup=False, highlight=False, soft_wrap=True)


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
