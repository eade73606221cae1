"""The files of a demonstration: figure.png, figures.json and settings.yaml; only --overwrite replaces earlier ones."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from gsdistill.disk.places import slug
from gsdistill.disk.write import check_folder, check_targets, write_json, write_text
from gsdistill.laboratory.demos.base import Demonstration
from gsdistill.laboratory.play import Play
from gsdistill.laboratory.plots import save_figure
from gsdistill.settings.config import name_of, to_dict, to_yaml
from gsdistill.settings.registry import label_of

__all__ = ["default_folder", "perform"]


def default_folder(demonstration: Demonstration) -> Path:
    """The default folder of the files: named after the demonstration, or in free play after prior, method and seed."""
    if not isinstance(demonstration, Play):
        name = name_of(demonstration)
    else:
        analytic = demonstration.prior == "analytic"
        prior = name_of(demonstration.world) if analytic else Path(label_of(demonstration.prior)).name
        name = f"{prior}-{slug(label_of(name_of(demonstration.method)))}-seed{demonstration.seed}"
    return Path("outputs") / "play2d" / name


def perform(demonstration: Demonstration, output: Path | None, overwrite: bool, console: Console) -> Path:
    """Run a demonstration, write its files, print where they are, and return their folder.

    Raises:
        OutputError: a file is there and ``overwrite`` is false, or the folder or a file cannot be written.
        UserError: as :meth:`Demonstration.run`.
    """
    folder = output or default_folder(demonstration)
    check_folder(folder)
    picture, report, settings = files = [folder / name for name in ("figure.png", "figures.json", "settings.yaml")]
    check_targets(files, overwrite, "another --output")
    began = time.perf_counter()
    outcome = demonstration.run()
    seconds = round(time.perf_counter() - began, 2)
    save_figure(outcome.draw(), picture)
    facts = {"name": name_of(demonstration), "settings": to_dict(demonstration), "seconds": seconds}
    write_json(report, {**facts, "figures": outcome.figures})
    write_text(settings, to_yaml(demonstration))
    console.print(Text(f"{picture}\n{report}\n{seconds:g} s"), soft_wrap=True)
    return folder
