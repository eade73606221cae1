"""Gathers the figures of a run or of a file from all rooms that measure, and prints them in groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gsdistill.core import device
from gsdistill.core.errors import BadFile, ConfigError, OutputError, PromptError, tell
from gsdistill.core.frames import Frame
from gsdistill.core.structs import Gaussians, to_device
from gsdistill.disk.paths import anchored_text, there
from gsdistill.disk.write import check_targets
from gsdistill.evaluation import fronts, plain
from gsdistill.evaluation.figures import GROUPS, JUDGE, PREFIX
from gsdistill.evaluation.plain import plain_figures
from gsdistill.evaluation.references import Truth, read_truth, truth_of_prompt
from gsdistill.evaluation.truth import evaluate
from gsdistill.evaluation.without_truth import figures_without_truth
from gsdistill.models import catalogue
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.loading import load_prior
from gsdistill.prior.prompts import PromptSettings
from gsdistill.run.measure import truth_of, world_of_run
from gsdistill.run.read import CONFIG, EVALUATION, FAILURE, RECORDS, SUMMARY, Run, read_run
from gsdistill.scene.read import OF_A_RUN, open_splat
from gsdistill.settings.config import from_dict
from gsdistill.worlds.base import World

__all__ = ["check_json", "gather", "print_figures"]

T = TypeVar("T")

ALONE, BY_PRIOR, REST = "the splat alone: needs no truth", "what the prior sees: from 24 sides", "others"


def gather(
    splat: Path,
    prompt: str | None = None,
    world: str | None = None,
    prior: str | None = None,
    truth: Path | None = None,
    frames: tuple[Frame | None, Frame | None] = (None, None),
    clean: bool = False,
) -> dict[str, Any]:
    """Measure a splat; returns the figures by name.

    ``frames`` are the axes of the splat and of the truth, for files that do not name theirs. A run is measured against
    its own prompt, unless ``prompt``, ``world`` or ``truth`` is given. ``prior`` adds the figures that need no truth.

    Raises:
        BadFile: the splat or the truth cannot be read. PromptError: the prompt of a file is not one of a world and
            there is neither truth nor prior, or the prior cannot serve it. ConfigError: a prior or a world without a
            prompt, or an unknown world.
    """
    for path in (splat, truth):
        if path and not path.exists():
            raise BadFile(f"{path}: there is no such file or folder")
    run = read_run(splat) if splat.is_dir() else None
    wanted = prompt or (run.prompt if run else None)
    if prior and wanted is None:
        raise ConfigError(f"prior = '{prior}' is asked about a prompt: add --prompt")
    if world and wanted is None:
        raise ConfigError(f"world = '{world}' is what a prompt is looked up in: add --prompt")
    if run and prompt is None and world is None and truth is None:
        reference = truth_of(run)
        if reference is None:
            tell(f"the object of '{run.prompt}' is not known: what needs a truth is left out; --truth FILE names one")
    else:
        within = world or (world_of_run(run) if run else None)
        reference = _truth_of(wanted, within) if wanted and not (truth or (prior and not world)) else None
    gaussians = open_splat(splat).resolve(frames[0], "--frame", clean)
    if truth:
        reference = read_truth(truth, frames[1], gaussians)
    figures = evaluate(gaussians, reference) if reference else {}
    if prior is None:
        return {**figures, **plain_figures(gaussians)}
    return {**figures, **_with_prior(prior, str(wanted), gaussians, run)}


def check_json(target: Path, sources: Iterable[Path], overwrite: bool) -> None:
    """Refuse a target for the figures that exists without ``overwrite``, or that is one of ``sources`` or a run's file.

    Raises:
        OutputError: the file may not be written.
    """
    for source in sources:
        files = [source, *(source / name for name in (OF_A_RUN, CONFIG, RECORDS, SUMMARY, EVALUATION, FAILURE))]
        if any(there(path) and there(target) and path.samefile(target) for path in files):
            raise OutputError(f"--json {target} is a file that is read, or a run's own; choose another --json")
    check_targets([target], overwrite, "another --json")


def _truth_of(prompt: str, world: World | str | None) -> Truth:
    """The object of a prompt."""
    try:
        return truth_of_prompt(prompt, world)
    except PromptError as error:
        raise PromptError(
            f"{error}. Without --prompt the splat is measured alone, and with --prior by a prior"
        ) from error


def _with_prior(name: str, prompt: str, gaussians: Gaussians, run: Run | None) -> dict[str, Any]:
    """The figures that need no truth. The run's own prior is loaded with the run's settings."""
    name = name if name in ("auto", *catalogue.known()) else anchored_text(name)  # as a run's settings hold it
    model = _of_run(ModelSettings, "model", run if run and name == run.settings.get("prior") else None)
    prompts = _of_run(PromptSettings, "prompts", run)
    target = device.choose("auto", tell)
    device.prepare(target)
    judge = catalogue.choose_prior(name, target)[0]
    prior = load_prior(judge, target, model, tell)
    return {**figures_without_truth(to_device(gaussians, target), prompt, prior, prompts), JUDGE: judge}


def _of_run(kind: type[T], name: str, run: Run | None) -> T:
    """A group of a run's settings, the defaults without a run. Raises BadFile, naming the file and the setting."""
    try:
        return from_dict(kind, (run.settings.get(name) or {}) if run else {}, name)
    except ConfigError as error:
        raise BadFile(f"{run.folder / CONFIG if run else name}: {error}") from error


def print_figures(figures: Mapping[str, Any], console: Console) -> None:
    """Print a table of the figures in groups, each with its meaning."""
    groups = {**GROUPS, ALONE: plain.MEANINGS, BY_PRIOR: {JUDGE: "The prior that was asked.", **fronts.MEANINGS}}
    grouped = {title: {name: figures[name] for name in names if name in figures} for title, names in groups.items()}
    in_groups = {name for names in groups.values() for name in names}
    grouped[REST] = {name: value for name, value in figures.items() if name not in in_groups}
    table = Table("figure", "value", "what it means, and what is best")
    for title, values in grouped.items():
        if not values:
            continue
        table.add_section()
        head, _, rest = title.partition(":")
        table.add_row(Text(head, style="bold"), "", Text(rest.strip(), style="italic"))
        for name, value in values.items():
            label, meaning = name.removeprefix(PREFIX).replace("_", " "), groups.get(title, {}).get(name, "")
            table.add_row(Text(f"  {label}"), Text(_text(value)), Text(meaning))
    console.print(table)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
