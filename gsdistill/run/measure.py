"""The figures of a run's splat: measured where they are missing, and kept beside it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsdistill.core.errors import BadFile, PromptError, UserError
from gsdistill.disk.write import write_json
from gsdistill.run.folder import EVALUATION, SPLAT, Run, read_figures, read_run, told

if TYPE_CHECKING:
    from gsdistill.evaluation.references import Truth

__all__ = ["evaluate_run", "keep_figures", "measure", "truth_of"]


def measure(run: Run) -> dict[str, Any]:
    """Measure the splat of a run, against the truth where it is known; :func:`keep_figures` takes what is returned.

    Raises:
        BadFile: the splat cannot be read.
    """
    from gsdistill.evaluation.plain import plain_figures
    from gsdistill.evaluation.truth import evaluate
    from gsdistill.scene.read import read_splat

    gaussians, truth = read_splat(run.folder), truth_of(run)
    return {**(evaluate(gaussians, truth) if truth else {}), **plain_figures(gaussians)}


def truth_of(run: Run) -> Truth | None:
    """The object of its prior's world that a run was to make; None for any other prompt, and for priors of any prompts.

    Of a prior that is no longer there the shapes world decides.
    """
    from gsdistill.evaluation.references import truth_of_prompt
    from gsdistill.models.catalogue import world_of
    from gsdistill.worlds.base import world_named

    world: str | None = "shapes"
    with suppress(UserError):
        world = world_of(told(run.settings.get("prior")))
    try:
        return truth_of_prompt(run.prompt, world_named(world)) if world else None
    except PromptError:
        return None


def keep_figures(folder: Path, figures: Mapping[str, Any]) -> None:
    """Write figures beside the splat of a run, over earlier ones of the same name: a sweep keeps more in the file.

    Raises:
        BadFile: earlier figures cannot be read. OutputError: the file cannot be written.
    """
    write_json(folder / EVALUATION, {**read_figures(folder), **figures})


def evaluate_run(folder: Path | str) -> dict[str, Any]:
    """Measure the splat in the folder of a run of the shapes world, as :func:`gsdistill.evaluation.truth.evaluate`.

    Raises:
        BadFile: the folder is no run's, or holds no splat, or a file of it is broken. PromptError: the prompt is not
            one of the shapes world.
    """
    run = read_run(Path(folder))
    if not (run.folder / SPLAT).is_file():
        raise BadFile(f"{folder} is not the folder of a finished run: it lacks {SPLAT}")
    from gsdistill.evaluation.truth import evaluate
    from gsdistill.scene.read import read_splat

    return evaluate(read_splat(run.folder / SPLAT), run.prompt)
