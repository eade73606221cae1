"""The runs of a sweep: their settings, their folders, and how far each one is.

<output>/runs/<prompt>/<method>[-<finish>]-seed<seed>-<iterations>steps/   the splat and the files of its run, and
    evaluation.json   the figures: those against the truth, if it is known, and those that need no truth
    failure.json      in its place if the run diverged
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gsdistill.core import device
from gsdistill.core.errors import BadFile, ConfigError, UserError
from gsdistill.disk.paths import anchored
from gsdistill.disk.places import slug
from gsdistill.disk.read import brief, read_json
from gsdistill.evaluation import fronts, plain
from gsdistill.evaluation.figures import JUDGE, renewed
from gsdistill.models.catalogue import choose_prior, world_of
from gsdistill.run.config import RunConfig, read_config, resolve
from gsdistill.run.read import CONFIG, EVALUATION, FAILURE, SUMMARY, name_in, number
from gsdistill.settings.config import from_dict, merge
from gsdistill.settings.registry import only_looking, same_name
from gsdistill.settings.yaml import load_yaml
from gsdistill.sweep.settings import SweepSettings, shown
from gsdistill.worlds.base import World, world_named

__all__ = ["SweepRun", "equal_evaluations", "equal_steps", "folder", "priced", "world_of_sweep"]

MEASURED = ("iou", "colour_error", "centre_chamfer", "floaters", "name_right", "colour_right")
COUNTED = ("iterations", "network_evaluations")


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep."""

    method: str  # its name as in the settings of the sweep
    config: RunConfig
    world: World | None  # the world of its prompt, which knows the truth; None if the truth is not known
    by_prior: bool  # whether the figures that the prior gives are measured too
    alone: SweepRun | None = None  # of a run with the finish: that of the method alone, from whose end it goes on

    @property
    def finish_steps(self) -> int:
        """The last of its steps, those of the finish."""
        return self.config.finish.steps(self.config.iterations)

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return self.config.folder

    @property
    def begun(self) -> bool:
        """Whether the folder holds a run of exactly these settings, finished or not; no class of it is loaded."""
        try:
            with only_looking():
                before = anchored(from_dict(RunConfig, load_yaml(self.folder / CONFIG)))
        except UserError:
            return False
        return replace(before, output=self.config.output) == self.config

    @property
    def finished(self) -> bool:
        """Whether the splat is there; its figures may be missing."""
        return self.begun and (self.folder / SUMMARY).exists()

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do: the figures are there, or the run has failed."""
        return (self.finished and self.figures is not None) or self.failure is not None

    @property
    def summary(self) -> dict[str, Any] | None:
        """The content of summary.json; None before the run's end. Raises BadFile if it is broken."""
        path = self.folder / SUMMARY
        summary = _read(path, COUNTED)
        if summary and not all(isinstance(summary[name], int) and summary[name] > 0 for name in COUNTED):
            raise BadFile(f"{path}: {' and '.join(COUNTED)} must be whole numbers above 0")
        return summary

    @property
    def figures(self) -> dict[str, Any] | None:
        """The content of evaluation.json; None unless it has every figure. Raises BadFile if it is broken."""
        names = [*(MEASURED if self.world else ()), *plain.MEANINGS, *(fronts.NUMBERS if self.by_prior else ())]
        path = self.folder / EVALUATION
        figures = _read(path)
        if figures is None or not figures.keys() >= set(names):  # a sweep that needed fewer has measured them
            return None
        # `gsdistill evaluate` may have written figures of another prior.
        if self.by_prior and figures.get(JUDGE, self.config.prior) != self.config.prior:
            return None
        return _read(path, names)

    @property
    def failure(self) -> str | None:
        """Why the run failed, or the one from whose end it goes on; None if neither did.

        Raises:
            BadFile: failure.json cannot be read.
        """
        if self.alone is not None and self.alone.failure is not None:
            return self.alone.failure
        failure = _read(self.folder / FAILURE) if self.begun else None
        return str(failure.get("error")) if failure else None


def folder(settings: SweepSettings, method: str, prompt: str, seed: int, iterations: int, finish_steps: int) -> Path:
    """The folder of one run of a sweep; ``iterations`` are all of its steps, ``finish_steps`` those of the finish."""
    finish = f"-{slug(shown(settings.finish))}" if finish_steps else ""
    return settings.output / "runs" / slug(prompt) / f"{slug(shown(method))}{finish}-seed{seed}-{iterations}steps"


def world_of_sweep(settings: SweepSettings) -> World | None:
    """The world of the sweep's prior, to which its prompts must belong; None for a prior that takes any prompt.

    Raises:
        UserError: an unknown prior or device.
    """
    name = world_of(choose_prior(settings.prior, device.choose(settings.device))[0])
    world = world_named(name) if name else None
    return world if world and world.at_hand() else None


def equal_steps(settings: SweepSettings) -> list[SweepRun]:
    """The runs of all methods with the same number of steps; those of the first seed come first.

    After each run of a method alone comes the one that goes on with the settings' finish, if they have one.

    Raises:
        UserError: a prompt is not of the prior's world, the prior or the device is unknown, or a config does not fit.
    """
    if world := world_of_sweep(settings):
        for prompt in settings.all_prompts:
            world.parse(prompt)
    return _runs(settings, {method: settings.iterations for method in settings.methods})


def priced(settings: SweepSettings) -> list[SweepRun]:
    """The runs that say what a step of each method costs: those of equal steps, where the settings ask for them.

    Else they are runs of the first prompt and seed with a tenth of the steps, which go through a method's whole
    schedule too. They do not depend on what is finished, so the steps of a sweep's runs stay what they are.

    Raises:
        UserError: as :func:`equal_steps`.
    """
    if settings.equal != "evaluations":
        return equal_steps(settings)
    one = replace(settings, prompts=settings.all_prompts[:1], prompt_file=None, sample=None, seeds=settings.seeds[:1])
    return equal_steps(replace(one, finish="none", iterations=math.ceil(settings.iterations / 10)))


def equal_evaluations(settings: SweepSettings) -> list[SweepRun]:
    """The runs of all methods with as many network evaluations as the cheapest method has in the settings' steps.

    The cost of a step is read from a method's first finished run of :func:`priced`. A method whose runs have all failed
    has no runs here. While a method may still finish its first, perhaps in another process, the list is empty.

    Raises:
        BadFile: a file of a run is broken.
        UserError: as :func:`equal_steps`.
    """
    costs: dict[str, float] = {}
    open_methods: set[str] = set()
    for run in priced(settings):
        if run.method in costs or run.finish_steps:
            continue
        if run.finished and (summary := run.summary):
            costs[run.method] = summary["network_evaluations"] / summary["iterations"]
        elif not run.settled:
            open_methods.add(run.method)
    if open_methods - costs.keys():
        return []
    budget = settings.iterations * min(costs.values(), default=0.0)
    return _runs(settings, {method: max(1, round(budget / cost)) for method, cost in costs.items()})


def _runs(settings: SweepSettings, iterations: dict[str, int]) -> list[SweepRun]:
    """The runs with all prompts and seeds; ``iterations`` has the steps of each method."""
    lasts = [0] if settings.finish == "none" else [0, settings.finish_iterations]
    bases = {
        (method, last): _base(settings, method, count, last) for method, count in iterations.items() for last in lasts
    }
    world, runs = world_of_sweep(settings), list[SweepRun]()
    for seed in settings.seeds:
        for prompt in settings.all_prompts:
            for (method, last), base in bases.items():
                output = folder(settings, method, prompt, seed, base.iterations, last)
                config = replace(base, prompt=prompt, seed=seed, output=output)
                alone = runs[-1] if last else None
                runs.append(SweepRun(method, config, world, settings.prior_figures, alone))
    return runs


def _base(settings: SweepSettings, method: str, steps: int, last: int) -> RunConfig:
    """The settings that all runs of a method share: its recipe, over it ``configs``, over both the sweep's settings.

    ``steps`` are those of the method, and ``last`` those of the finish.
    """
    file = settings.own_configs.get(method)
    own = read_config(file) if file else {}
    if not same_name(name_in(own.get("method", method)) or method, method):
        raise ConfigError(f"configs: {file} is not a config of the method {method}")
    finish = {"name": settings.finish, "share": last / (steps + last)} if last else "none"
    shared = {"prior": settings.prior, "device": settings.device, "finish": finish, "snapshots": 0}
    changes = {**shared, "method": method, "iterations": steps + last, "prompt": settings.all_prompts[0]}
    config = resolve(merge(own, changes))
    if (found := config.finish.steps(config.iterations)) != last:
        raise ConfigError(
            f"finish = '{settings.finish}' takes {found} steps of {config.iterations}, not the {last} asked"
        )
    return config


def _read(path: Path, numbers: Sequence[str] = ()) -> dict[str, Any] | None:
    """The content of a JSON file, in which ``numbers`` must be numbers, true or false; None without the file."""
    if not path.exists():
        return None
    values = renewed(read_json(path))
    for name in numbers:
        if number(values, name) is None and not isinstance(values.get(name), bool):
            raise BadFile(f"{path}: {name} = {brief(values.get(name))} is not a number")
    return values
