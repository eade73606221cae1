"""Measures the splat of a run, and writes the figures to evaluation.json in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsdistill.core.errors import BadFile, PromptError, UserError
from gsdistill.disk.write import write_json
from gsdistill.run.read import EVALUATION, SPLAT, Run, read_evaluation, read_run, text_of

if TYPE_CHECKING:
    from gsdistill.evaluation.references import Truth
    from gsdistill.worlds.base import World

__all__ = ["evaluate_run", "keep_figures", "measure_run", "truth_of", "world_of_run"]


def measure_run(run: Run) -> dict[str, Any]:
    """Measure the splat of a run, against the truth if it is known; returns the figures by name.

    Raises:
        BadFile: the splat cannot be read.
    """
    from gsdistill.evaluation.plain import plain_figures
    from gsdistill.evaluation.truth import evaluate
    from gsdistill.scene.read import read_splat

    gaussians, truth = read_splat(run.folder), truth_of(run)
    return {**(evaluate(gaussians, truth) if truth else {}), **plain_figures(gaussians)}


def truth_of(run: Run) -> Truth | None:
    """The object that a run's prompt names in the world of its prior; None if it names none, or there is no world."""
    from gsdistill.evaluation.references import truth_of_prompt

    world = world_of_run(run)
    try:
        return truth_of_prompt(run.prompt, world) if world else None
    except PromptError:
        return None


def world_of_run(run: Run) -> World | None:
    """The world of a run's prior, if it has one; the shapes world if the prior cannot be found any more."""
    from gsdistill.models.catalogue import world_of
    from gsdistill.worlds.base import world_named

    world: str | None = "shapes"
    with suppress(UserError):
        world = world_of(text_of(run.settings.get("prior")))
    return world_named(world) if world else None


def keep_figures(folder: Path, figures: Mapping[str, Any]) -> None:
    """Write figures to a run's evaluation.json. Others that are there stay, for a sweep adds its own.

    Raises:
        BadFile: earlier figures cannot be read. OutputError: the file cannot be written.
    """
    write_json(folder / EVALUATION, {**read_evaluation(folder), **figures})


def evaluate_run(folder: Path | str) -> dict[str, Any]:
    """Measure the splat of a run against the truth of its prompt: :func:`gsdistill.evaluation.truth.evaluate`.

    Raises:
        BadFile: the folder is not a run's, holds no splat, or has a broken file. PromptError: the prompt is not one of
            the world of the run's prior, or of any.
    """
    run = read_run(Path(folder))
    if not (run.folder / SPLAT).is_file():
        raise BadFile(f"{folder} is not the folder of a finished run: it lacks {SPLAT}")
    from gsdistill.evaluation.references import truth_of_prompt
    from gsdistill.evaluation.truth import evaluate
    from gsdistill.scene.read import read_splat

    return evaluate(read_splat(run.folder / SPLAT), truth_of_prompt(run.prompt, world_of_run(run)))
