"""The figures of a sweep: one row per run, and one entry per method and number of steps with 95 % intervals.

A failed run has no splat, and counts as the evaluation counts an empty one: IoU 0, nothing right, colour error 1,
Chamfer distance 2; and PSNR 0, that of white where all is black. It has no part in the figures that need no truth, in
times and in the differences between seeds. Where the truth is not known, all figures that need it are None, of failed
runs too; and so is what a run of an earlier version was not measured for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from gsdistill import __version__
from gsdistill.disk.write import write_json
from gsdistill.evaluation import fronts, plain
from gsdistill.evaluation.diversity import frechet_between, rms_between, saturation
from gsdistill.evaluation.statistics import Interval, bootstrap, wilson
from gsdistill.evaluation.surface import FARTHEST
from gsdistill.evaluation.views import photograph, truth
from gsdistill.run.read import number
from gsdistill.scene.read import read_splat
from gsdistill.settings.config import to_dict
from gsdistill.sweep.plan import SweepRun, equal_evaluations, equal_steps, world_of_sweep
from gsdistill.sweep.settings import SweepSettings

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
    """One method with one number of steps: a row of the table."""

    method: str
    iterations: int
    equal_steps: bool  # belongs to the comparison with equal steps
    equal_evaluations: bool  # belongs to the comparison with equal network evaluations
    rows: tuple[Row, ...]  # of the settled runs
    figures: dict[str, Interval | None]

    @property
    def failed(self) -> int:
        """How many runs failed."""
        return sum(row["failure"] is not None for row in self.rows)


@dataclass(frozen=True)
class Comparison:
    """All that a sweep has found so far."""

    settings: SweepSettings
    entries: tuple[Entry, ...]
    planned: int  # runs in the whole sweep, as far as known
    true_saturation: float | None  # mean over the prompts, of the true pictures; None where there are none

    @property
    def settled(self) -> int:
        """Runs that are done."""
        return sum(len(entry.rows) for entry in self.entries)

    def fact(self, name: str) -> list[Any]:
        """The different values that the finished runs have of ``device``, ``threads`` or ``versions``."""
        values: list[Any] = []
        for value in (row[name] for row in self._rows() if row[name]):
            if value not in values:
                values.append(value)
        return values

    def write(self) -> None:
        """Write results.json. Raises OutputError as atomic_path does."""
        entries = [
            {
                "method": entry.method,
                "iterations": entry.iterations,
                "equal_steps": entry.equal_steps,
                "equal_evaluations": entry.equal_evaluations,
                "runs": len(entry.rows),
                "failed": entry.failed,
                "figures": {name: results and asdict(results) for name, results in entry.figures.items()},
            }
            for entry in self.entries
        ]
        results = {
            "gsdistill": __version__,
            "settings": to_dict(self.settings),
            "planned": self.planned,
            "settled": self.settled,
            **{name: self.fact(name) for name in _FACTS},
            "true_saturation": self.true_saturation,
            "comparison": entries,
            "rows": [{name: value for name, value in row.items() if name not in _FACTS} for row in self._rows()],
        }
        write_json(self.settings.output / "results.json", results)

    def _rows(self) -> list[Row]:
        return [row for entry in self.entries for row in entry.rows]


_FACTS = {"device": str, "threads": int, "versions": dict}


def compare(settings: SweepSettings) -> Comparison:
    """Collect what the runs of a sweep have left on the disk."""
    kinds = {
        "steps": equal_steps(settings) if settings.equal != "evaluations" else [],
        "evaluations": equal_evaluations(settings) if settings.equal != "steps" else [],
    }
    groups: dict[tuple[str, int], list[SweepRun]] = {}
    members: dict[str, set[tuple[str, int]]] = {kind: set() for kind in kinds}
    for kind, runs in kinds.items():
        for key in dict.fromkeys((one.method, one.config.iterations) for one in runs):
            members[kind].add(key)
            groups[key] = [one for one in runs if (one.method, one.config.iterations) == key]
    entries: list[Entry] = []
    for key in sorted(groups, key=lambda key: (settings.methods.index(key[0]), -key[1])):
        entry = _entry(groups[key], key in members["steps"], key in members["evaluations"])
        entries.append(replace(entry, figures={**entry.figures, "iou_over_first": _over_first(entry, entries)}))
    true = None
    if world := world_of_sweep(settings):
        true = float(np.mean([saturation(truth(world, world.parse(prompt))) for prompt in settings.all_prompts]))
    return Comparison(settings, tuple(entries), sum(map(len, groups.values())), true)


def _entry(runs: Sequence[SweepRun], steps: bool, evaluations: bool) -> Entry:
    settled = [one for one in runs if one.settled]
    rows = tuple(_row(one) for one in settled)
    figures = {name: bootstrap(_grid({_place(row): row[name] for row in rows})) for name in MEANS}
    judged = {name: [row[name] for row in rows if row[name] is not None] for name in SHARES}
    shares = {name: wilson(sum(values), len(values)) for name, values in judged.items()}
    first = runs[0]
    return Entry(
        method=first.method,
        iterations=first.config.iterations,
        equal_steps=steps,
        equal_evaluations=evaluations,
        rows=rows,
        figures={**figures, **shares, **_between(settled)},
    )


def _row(one: SweepRun) -> Row:
    """What one settled run has to say; None where a failed one has nothing."""
    config, summary, figures = one.config, one.summary or {}, one.figures or (FAILED if one.world else {})
    return {
        "method": one.method,
        "prompt": config.prompt,
        "seed": config.seed,
        "iterations": config.iterations,
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
    """The time of all steps; None where the phases do not tell it."""
    spent = [number(phases, name) for name in phases] if isinstance(phases, dict) else []
    return round(sum(filter(None, spent)), 3) if spent and None not in spent else None


def _between(settled: Sequence[SweepRun]) -> dict[str, Interval | None]:
    """The differences between seeds: one value for each prompt, the interval is over the prompts."""
    values: dict[str, dict[tuple[str, int], float | None]] = {name: {} for name in BETWEEN_SEEDS}
    for prompt in dict.fromkeys(one.config.prompt for one in settled):
        finished = [one for one in settled if one.config.prompt == prompt and not one.failure]
        seen = [photograph(read_splat(one.folder)) for one in finished]
        for name, measure in BETWEEN_SEEDS.items():
            values[name][prompt, 0] = measure(seen)
    return {name: bootstrap(_grid(column)) for name, column in values.items()}


def _over_first(entry: Entry, earlier: Sequence[Entry]) -> Interval | None:
    """IoU less that of the sweep's first method on the same prompt and seed, in a comparison that has both."""
    for first in earlier:
        shared = (first.equal_steps and entry.equal_steps) or (first.equal_evaluations and entry.equal_evaluations)
        if first.method == earlier[0].method != entry.method and shared:
            base = {_place(row): row["iou"] for row in first.rows if row["iou"] is not None}
            pairs = [(_place(row), row["iou"]) for row in entry.rows if _place(row) in base]
            return bootstrap(_grid({place: iou - base[place] for place, iou in pairs}))
    return None


def _place(row: Row) -> tuple[str, int]:
    return row["prompt"], row["seed"]


def _grid(values: Mapping[tuple[str, int], float | None]) -> Float[np.ndarray, "P S"]:
    """Values by (prompt, seed) as prompts x seeds, NaN where there is none."""
    prompts = list(dict.fromkeys(prompt for prompt, _ in values))
    seeds = list(dict.fromkeys(seed for _, seed in values))
    grid = np.full((len(prompts), len(seeds)), np.nan)
    for (prompt, seed), value in values.items():
        grid[prompts.index(prompt), seeds.index(seed)] = np.nan if value is None else value
    return grid
