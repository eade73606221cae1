"""The runs of a sweep: their settings, their folders, and what of them is on the disk.

<output>/runs/<prompt>/<method>-seed<seed>-<iterations>steps/   the files of `generate` but the video, and
    evaluation.json   the figures: against the truth, where it is known, and those that need none
    failure.json      instead, where the run diverged
"""

from __future__ import annotations

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

__all__ = ["SweepRun", "equal_evaluations", "equal_steps", "folder", "world_of_sweep"]

MEASURED = ("iou", "colour_error", "centre_chamfer", "floaters", "name_right", "colour_right")
COUNTED = ("iterations", "network_evaluations")


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep."""

    method: str  # its name as the settings have it
    config: RunConfig
    world: World | None  # of its prompt, where the truth is known, which it is measured against
    asked: bool  # the prior is asked what it sees in the splat

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.config.folder

    @property
    def begun(self) -> bool:
        """Whether the folder holds a run of these very settings, finished or not; no class that it names is loaded."""
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
        """Whether there is nothing left to do: the figures are there, or it has failed."""
        return (self.finished and self.figures is not None) or (self.begun and self.failure is not None)

    @property
    def summary(self) -> dict[str, Any] | None:
        """summary.json, where the run has ended. Raises BadFile where it is broken."""
        path = self.folder / SUMMARY
        summary = _read(path, COUNTED)
        if summary and not all(isinstance(summary[name], int) and summary[name] > 0 for name in COUNTED):
            raise BadFile(f"{path}: it tells of no step")
        return summary

    @property
    def figures(self) -> dict[str, Any] | None:
        """evaluation.json, once it has all that is measured. Raises BadFile where it is broken."""
        names = [*(MEASURED if self.world else ()), *plain.MEANINGS, *(fronts.NUMBERS if self.asked else ())]
        path = self.folder / EVALUATION
        figures = _read(path)
        if figures is None or not figures.keys() >= set(names):  # measured by a sweep that asked for less
            return None
        if (
            self.asked and figures.get(JUDGE, self.config.prior) != self.config.prior
        ):  # `evaluate` has asked another one
            return None
        return _read(path, names)

    @property
    def failure(self) -> str | None:
        """Why the run failed, if it did. Raises BadFile where that cannot be read."""
        failure = _read(self.folder / FAILURE)
        return str(failure.get("error")) if failure else None


def folder(settings: SweepSettings, method: str, prompt: str, seed: int, iterations: int) -> Path:
    """The folder of one run of a sweep."""
    finished = "" if settings.finish == "none" else f"-{settings.finish}"
    return settings.output / "runs" / slug(prompt) / f"{slug(shown(method))}{finished}-seed{seed}-{iterations}steps"


def world_of_sweep(settings: SweepSettings) -> World | None:
    """The world whose prompts are compared, which only a prior of that world makes sure; None where any prompt goes.

    Raises:
        UserError: an unknown prior or device.
    """
    name = world_of(choose_prior(settings.prior, device.choose(settings.device))[0])
    return world_named(name) if name else None


def equal_steps(settings: SweepSettings) -> list[SweepRun]:
    """Every method with the same number of steps; all of the first seed come first.

    Raises:
        UserError: a prompt that is not of the prior's world, an unknown prior or device, a config that does not fit.
    """
    if world := world_of_sweep(settings):
        for prompt in settings.all_prompts:
            world.parse(prompt)
    return _runs(settings, {method: settings.iterations for method in settings.methods})


def equal_evaluations(settings: SweepSettings) -> list[SweepRun]:
    """Every method with the network evaluations that the cheapest spends in the equal-step runs.

    What a step costs is read from a method's first finished equal-step run. A method whose runs have all failed has no
    runs here; while a method may still finish its first, perhaps in another process, there are none at all.
    """
    costs: dict[str, float] = {}
    open_methods: set[str] = set()
    for run in equal_steps(settings):
        if run.method in costs:
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
    """All runs of the methods with a number of steps."""
    bases, world = {method: _base(settings, method) for method in iterations}, world_of_sweep(settings)
    runs = []
    for seed in settings.seeds:
        for prompt in settings.all_prompts:
            for method, count in iterations.items():
                own = {"prompt": prompt, "seed": seed, "iterations": count}
                output = folder(settings, method, prompt, seed, count)
                config = replace(bases[method], **own, output=output)
                runs.append(SweepRun(method, config, world, settings.prior_figures))
    return runs


def _base(settings: SweepSettings, method: str) -> RunConfig:
    """What all runs of a method share: its recipe, under the sweep's own config for it, under the sweep's settings."""
    file = settings.own_configs.get(method)
    own = read_config(file) if file else {}
    if not same_name(name_in(own.get("method", method)) or method, method):
        raise ConfigError(f"configs: {file} is not a config of the method {method}")
    shared = {"prompt": settings.all_prompts[0], "prior": settings.prior, "device": settings.device, "snapshots": 0}
    shared["finish"] = settings.finish
    return resolve(merge(own, {**shared, "method": method}))


def _read(path: Path, numbers: Sequence[str] = ()) -> dict[str, Any] | None:
    """The content of a file, with these numbers in it or whether something is so; None where there is no file."""
    if not path.exists():
        return None
    values = renewed(read_json(path))
    for name in numbers:
        if number(values, name) is None and not isinstance(values.get(name), bool):
            raise BadFile(f"{path}: {name} = {brief(values.get(name))} is no number")
    return values
