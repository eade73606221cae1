"""What a demonstration leaves: figure.png, figures.json and settings.yaml; nothing is overwritten unasked."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from gsdistill.core.errors import OutputError
from gsdistill.disk.places import slug
from gsdistill.disk.write import check_folder, write_json, write_text
from gsdistill.laboratory.demos.base import Demonstration
from gsdistill.laboratory.play import Play
from gsdistill.laboratory.plots import save_figure
from gsdistill.settings.config import name_of, to_dict, to_yaml
from gsdistill.settings.registry import label_of

__all__ = ["default_folder", "perform"]


def default_folder(demonstration: Demonstration) -> Path:
    """Where the files go if nothing else is said: named after the demonstration, or the prior and the method."""
    name = name_of(demonstration)
    if isinstance(demonstration, Play):
        prior = (
            name_of(demonstration.world)
            if demonstration.prior == "analytic"
            else Path(label_of(demonstration.prior)).name
        )
        name = f"{prior}-{slug(label_of(name_of(demonstration.method)))}-seed{demonstration.seed}"
    return Path("outputs") / "play2d" / name


def perform(demonstration: Demonstration, output: Path | None, overwrite: bool, console: Console) -> Path:
    """Run and draw, write the files and say where; returns their folder.

    Raises:
        OutputError: the folder holds an earlier run and ``overwrite`` is false, it cannot be written or be a folder.
        UserError: what :meth:`Demonstration.run` raises.
    """
    folder = output or default_folder(demonstration)
    check_folder(folder)
    picture, report, settings = (folder / name for name in ("figure.png", "figures.json", "settings.yaml"))
    there = [path for path in (picture, report, settings) if path.exists()]
    if there and not overwrite:
        raise OutputError(f"{there[0]} exists; choose another --output, or replace it with --overwrite")
    began = time.perf_counter()
    outcome = demonstration.run()
    seconds = round(time.perf_counter() - began, 2)
    save_figure(outcome.draw(), picture)
    facts = {"name": name_of(demonstration), "settings": to_dict(demonstration), "seconds": seconds}
    write_json(report, {**facts, "figures": outcome.figures})
    write_text(settings, to_yaml(demonstration))
    console.print(Text(f"{picture}\n{report}\n{seconds:g} s"), soft_wrap=True)
    return folder
