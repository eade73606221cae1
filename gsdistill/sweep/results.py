"""The figures of a sweep: one row per run, and one entry per method and number of steps with 95 % intervals.

A failed run has no splat, and counts as the evaluation counts an empty one: IoU 0, nothing right, colour error 1,
Chamfer distance 2; and PSNR 0, that of white in place of black. It is left out of the figures that need no truth, of
times and of the differences between seeds. Where the truth is not known, all figures that need it are None, also for
failed runs. So are figures that an earlier version did not measure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from gsdistill import __version__
from gsdistill.disk.write import write_json
from gsdistill.evaluation import fronts, plain
from gsdistill.evaluation.diversity import frechet_between, rms_between, saturation
from gsdistill.evaluation.plain import plain_figures
from gsdistill.evaluation.references import truth_of_prompt
from gsdistill.evaluation.statistics import Interval, bootstrap, wilson
from gsdistill.evaluation.surface import FARTHEST
from gsdistill.evaluation.truth import evaluate
from gsdistill.evaluation.views import photograph, truth
from gsdistill.run.read import number
from gsdistill.scene.read import read_splat
from gsdistill.settings.config import to_dict
from gsdistill.sweep.plan import SweepRun, equal_evaluations, equal_steps, world_of_sweep
from gsdistill.sweep.settings import SweepSettings
from gsdistill.worlds.base import World

__all__ = ["MEANS", "SHARES", "Comparison", "Entry", "compare"]

TRUE_MEANS = ("iou", "unseen_iou", "psnr", "colour_error", "surface_chamfer", "centre_chamfer", "floaters")
MEANS = (*TRUE_MEANS, *plain.MEANINGS, *fronts.NUMBERS, "seconds", "network_evaluations")
SHARES = ("name_right", "colour_right")
BETWEEN_SEEDS = {"rms_between_seeds": rms_between, "frechet_between_seeds": frechet_between}
FAILED = {
    "iou": 0.0, "unseen_iou": 0.0, "psnr": 0.0, "colour_error": 1.0, "surface_chamfer": FARTHEST,
    "centre_chamfer": FARTHEST, "floaters": 0.0, "name_right": False, "colour_right": False,
}  # fmt: skip

Row = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One method with one number of steps, alone or with the finish: a row of the table."""

    method: str
    iterations: int  # all steps of a run
    finish_steps: int  # the last of them, those of the finish
    equal_steps: bool  # belongs to the comparison with equal steps
    equal_evaluations: bool  # belongs to the comparison with equal network evaluations
    rows: tuple[Row, ...]  # of the settled runs
    figures: dict[str, Interval | None]  # by name; None where no run has the figure

    @property
    def failed(self) -> int:
        """The number of failed runs."""
        return sum(row["failure"] is not None for row in self.rows)


@dataclass(frozen=True)
class Comparison:
    """All results of a sweep so far."""

    settings: SweepSettings
    entries: tuple[Entry, ...]
    planned: int  # runs in the whole sweep, as far as their number is known
    true_saturation: float | None  # of the true pictures, mean over the prompts; None if the truth is not known
    reference: Entry | None = None  # what a perfect distillation would have, where the world knows it

    @property
    def lines(self) -> tuple[Entry, ...]:
        """The entries of a table."""
        return self.entries if self.reference is None else (*self.entries, self.reference)

    @property
    def settled(self) -> int:
        """The number of settled runs: measured or failed."""
        return sum(len(entry.rows) for entry in self.entries)

    def fact(self, name: str) -> list[Any]:
        """The distinct values of ``device``, ``threads`` or ``versions`` among the finished runs."""
        values: list[Any] = []
        for value in (row[name] for row in self._rows() if row[name]):
            if value not in values:
                values.append(value)
        return values

    def write(self) -> None:
        """Write results.json into the sweep's folder. Raises OutputError if it cannot be written."""
        entries = [
            {
                "method": entry.method,
                "iterations": entry.iterations,
                "finish_steps": entry.finish_steps,
                "equal_steps": entry.equal_steps,
                "equal_evaluations": entry.equal_evaluations,
                "runs": len(entry.rows),
                "failed": entry.failed,
                "figures": {name: results and asdict(results) for name, results in entry.figures.items()},
            }
            for entry in self.entries
        ]
        reference = self.reference and {name: ours and asdict(ours) for name, ours in self.reference.figures.items()}
        results = {
            "gsdistill": __version__,
            "settings": to_dict(self.settings),
            "planned": self.planned,
            "settled": self.settled,
            **{name: self.fact(name) for name in _FACTS},
            "true_saturation": self.true_saturation,
            "reference": reference,
            "comparison": entries,
            "rows": [{name: value for name, value in row.items() if name not in _FACTS} for row in self._rows()],
        }
        write_json(self.settings.output / "results.json", results)

    def _rows(self) -> list[Row]:
        return [row for entry in self.entries for row in entry.rows]


_FACTS = {"device": str, "threads": int, "versions": dict}


def compare(settings: SweepSettings) -> Comparison:
    """Compare the runs of a sweep by the files that they have left so far.

    Raises:
        BadFile: a file of a run is broken.
        UserError: as :func:`gsdistill.sweep.plan.equal_steps`.
    """
    by_steps = _grouped(equal_steps(settings) if settings.equal != "evaluations" else [])
    by_evaluations = _grouped(equal_evaluations(settings) if settings.equal != "steps" else [])
    groups = {**by_steps, **by_evaluations}
    entries: list[Entry] = []
    for key in sorted(groups, key=lambda key: (settings.methods.index(key[0]), key[2], -key[1])):
        entry = _entry(groups[key], key in by_steps, key in by_evaluations)
        entries.append(replace(entry, figures={**entry.figures, "iou_over_first": _over_first(entry, entries)}))
    true_saturation, reference = None, None
    if world := world_of_sweep(settings):
        reference = _reference(world, settings.all_prompts)
        values = [saturation(truth(world, world.parse(prompt))) for prompt in settings.all_prompts]
        true_saturation = float(np.mean(values))
    return Comparison(settings, tuple(entries), sum(map(len, groups.values())), true_saturation, reference)


def _grouped(runs: Sequence[SweepRun]) -> dict[tuple[str, int, int], list[SweepRun]]:
    """The runs by method, number of steps, and steps of the finish."""
    groups = defaultdict(list)
    for one in runs:
        groups[one.method, one.config.iterations, one.finish_steps].append(one)
    return groups


def _entry(runs: Sequence[SweepRun], steps: bool, evaluations: bool) -> Entry:
    settled = [one for one in runs if one.settled]
    rows = tuple(_row(one) for one in settled)
    return Entry(
        method=runs[0].method,
        iterations=runs[0].config.iterations,
        finish_steps=runs[0].finish_steps,
        equal_steps=steps,
        equal_evaluations=evaluations,
        rows=rows,
        figures={**_intervals(rows), **_between(settled)},
    )


def _intervals(rows: Sequence[Row]) -> dict[str, Interval | None]:
    """The means and shares over some rows."""
    figures = {name: bootstrap(_grid({_place(row): row[name] for row in rows})) for name in MEANS}
    verdicts = {name: [row[name] for row in rows if row[name] is not None] for name in SHARES}
    return figures | {name: wilson(sum(values), len(values)) for name, values in verdicts.items()}


def _reference(world: World, prompts: Sequence[str]) -> Entry | None:
    """The figures of the reference splats of all prompts; None unless each has one."""
    rows = []
    for prompt in prompts:
        things = world.parse(prompt)
        if (splat := world.reference(things)) is None:
            return None
        figures = evaluate(splat, truth_of_prompt(prompt, world)) | plain_figures(splat)
        measured = {name: number(figures, name) for name in MEANS} | {name: figures[name] for name in SHARES}
        rows.append({"prompt": prompt, "seed": 0, "failure": None, **measured})
    absent = dict.fromkeys(("iou_over_first", *BETWEEN_SEEDS))
    return Entry("reference splats", 0, 0, False, False, tuple(rows), {**_intervals(rows), **absent})


def _row(one: SweepRun) -> Row:
    """The row of a settled run; a failed one has None for what it lacks."""
    config, summary, figures = one.config, one.summary or {}, one.figures or (FAILED if one.world else {})
    return {
        "method": one.method,
        "prompt": config.prompt,
        "seed": config.seed,
        "iterations": config.iterations,
        "finish_steps": one.finish_steps,
        "failure": one.failure,
        "name": figures.get("name"),
        **{name: number(figures, name) for name in MEANS},
        "views_seen": figures.get("views_seen"),
        **{name: bool(figures[name]) if one.world else None for name in SHARES},
        "network_evaluations": summary.get("network_evaluations"),
        "seconds": _seconds(summary.get("seconds_by_phase")),
        **{name: value if isinstance(value := summary.get(name), kind) else None for name, kind in _FACTS.items()},
    }


def _seconds(phases: Any) -> float | None:
    """The seconds of all steps; None unless every phase has a number."""
    seconds = [number(phases, name) for name in phases] if isinstance(phases, dict) else []
    return round(sum(filter(None, seconds)), 3) if seconds and None not in seconds else None


def _between(settled: Sequence[SweepRun]) -> dict[str, Interval | None]:
    """The differences between seeds: one value for each prompt, and the interval over the prompts."""
    values: dict[str, dict[tuple[str, int], float | None]] = {name: {} for name in BETWEEN_SEEDS}
    for prompt in dict.fromkeys(one.config.prompt for one in settled):
        finished = [one for one in settled if one.config.prompt == prompt and not one.failure]
        pictures = [photograph(read_splat(one.folder)) for one in finished]
        for name, measure in BETWEEN_SEEDS.items():
            values[name][prompt, 0] = measure(pictures)
    return {name: bootstrap(_grid(column)) for name, column in values.items()}


def _over_first(entry: Entry, earlier: Sequence[Entry]) -> Interval | None:
    """IoU minus that of the sweep's first method with the same prompt and seed; None without a shared comparison.

    Runs with the finish are compared with runs with the finish.
    """
    for first in earlier:
        shared = (first.equal_steps and entry.equal_steps) or (first.equal_evaluations and entry.equal_evaluations)
        shared = shared and first.finish_steps == entry.finish_steps
        if first.method == earlier[0].method != entry.method and shared:
            base = {_place(row): row["iou"] for row in first.rows if row["iou"] is not None}
            pairs = [(_place(row), row["iou"]) for row in entry.rows if _place(row) in base]
            return bootstrap(_grid({place: iou - base[place] for place, iou in pairs}))
    return None


def _place(row: Row) -> tuple[str, int]:
    return row["prompt"], row["seed"]


def _grid(values: Mapping[tuple[str, int], float | None]) -> Float[np.ndarray, "P S"]:
    """Values by (prompt, seed) as a grid of P prompts and S seeds, NaN where there is none."""
    prompts = list(dict.fromkeys(prompt for prompt, _ in values))
    seeds = list(dict.fromkeys(seed for _, seed in values))
    grid = np.full((len(prompts), len(seeds)), np.nan)
    for (prompt, seed), value in values.items():
        grid[prompts.index(prompt), seeds.index(seed)] = np.nan if value is None else value
    return grid
