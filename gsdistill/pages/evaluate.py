"""``gsdistill evaluate``: the figures of a run or of a file, printed in groups, and kept where they belong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gsdistill.errors import BadFile, ConfigError
from gsdistill.evaluation.figures import GROUPS, PREFIX
from gsdistill.evaluation.settings import EvaluateCommand
from gsdistill.files import write_json
from gsdistill.pages.run import keep_figures, measure

__all__ = ["evaluate", "gather", "show"]

REST, SPLAT = "others", "gaussians.ply"


def evaluate(command: EvaluateCommand, console: Console) -> None:
    """Measure, print and keep.

    Raises:
        UserError: as :func:`gather`, or a file cannot be written.
    """
    figures = gather(command)
    show(figures, console)
    if command.json:
        write_json(command.json, figures)
    if _own(command):
        keep_figures(command.splat, figures)


def gather(command: EvaluateCommand) -> dict[str, Any]:
    """All figures that are asked for, by name: the one place where they come together.

    Raises:
        BadFile: the splat or the truth cannot be read. PromptError: the prompt is not one of the shapes world.
        ConfigError: a file is to be measured against nothing.
    """
    for path in (command.splat, command.truth):
        if path and not path.exists():
            raise BadFile(f"{path}: there is no such file or folder")
    if _own(command):
        return measure(command.splat)
    if command.prompt is None and command.truth is None:
        raise ConfigError(
            f"{command.splat} is no run, which would name its prompt: name what to measure it against, --prompt 'a red "
            "torus' of the shapes world, or --truth FILE, a mesh or a splat"
        )
    from gsdistill.evaluation.references import of_file, of_prompt, read_splat
    from gsdistill.evaluation.truth import evaluate

    splat = command.splat / SPLAT if command.splat.is_dir() else command.splat
    if command.truth is None:
        truth = of_prompt(str(command.prompt))  # refused before the splat is read
        return evaluate(read_splat(splat, command.frame, "--frame"), truth)
    gaussians = read_splat(splat, command.frame, "--frame")
    return evaluate(gaussians, of_file(command.truth, command.truth_frame, gaussians))


def show(figures: Mapping[str, Any], console: Console) -> None:
    """Print figures by groups, each with what it means."""
    grouped = {title: {name: figures[name] for name in names if name in figures} for title, names in GROUPS.items()}
    known = {name for names in GROUPS.values() for name in names}
    grouped[REST] = {name: value for name, value in figures.items() if name not in known}
    table = Table("figure", "value", "what it means, and what is best")
    for title, found in grouped.items():
        if not found:
            continue
        table.add_section()
        head, _, rest = title.partition(":")
        table.add_row(Text(head, style="bold"), "", Text(rest.strip(), style="italic"))
        for name, value in found.items():
            meaning = GROUPS.get(title, {}).get(name, "")
            table.add_row(Text(f"  {_label(name)}"), Text(_told(value)), Text(meaning))
    console.print(table)


def _own(command: EvaluateCommand) -> bool:
    """Whether a run is measured against its own prompt."""
    return command.splat.is_dir() and command.prompt is None and command.truth is None


def _label(name: str) -> str:
    return name.removeprefix(PREFIX).replace("_", " ")


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
