"""The report of a run: one HTML file with its pictures, its video, its curves and its figures inside.

What a run has not left is left out, with a word where it would be missed; a file that is there but broken is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gsdistill.core.errors import PromptError
from gsdistill.disk.read import read_records
from gsdistill.evaluation.figures import JUDGE
from gsdistill.pages.charts import bar, curve
from gsdistill.pages.choices import as_yaml, differences, marked_yaml, shown_leaves
from gsdistill.pages.markup import write_page
from gsdistill.pages.pictures import Picture, beside_truth, floating, growth, picture, video
from gsdistill.run.measure import keep_figures, measure_run
from gsdistill.run.read import CONFIG, RECORDS, SPLAT, SUMMARY, Run, name_in, number, read_run, snapshots, text_of
from gsdistill.settings.registry import label_of

__all__ = ["REPORT", "write_report"]

REPORT = "report.html"
POINTS = 1000  # of a curve at most
TITLES = {"loss": "loss", "gaussians": "number of Gaussians", "timestep": "mean timestep of the noise"}
REST = "files, pictures and the start"  # the time that is no step's
NOT_CURVES = ("step", "seconds", "finite")
FILES = {
    SPLAT: "the splat, in the layout every viewer reads",
    "turntable.mp4": "one turn",
    "views.png": "eight sides at two elevations, the last one from below",
    CONFIG: "all settings, to be read back by --config",
    RECORDS: "the course of the run",
    SUMMARY: "times, evaluations, memory and versions",
    "evaluation.json": "figures, against the truth where it is known",
}
SIDES = "from eight sides at 20 degrees above the horizon and at 60, last from below"


def write_report(folder: Path, defaults: Mapping[str, Any], evaluate: bool = True) -> Path:
    """Write ``report.html`` into the folder of a run, finished or not, and return its path.

    ``defaults`` are those of a run's settings: what differs from them is marked. With ``evaluate`` a splat without
    figures is measured, against the truth where it is known, and they are kept for others in ``evaluation.json``.

    Raises:
        BadFile: the folder is not that of a run, or a file in it is broken. ConfigError: its settings name a method
            that there is not. OutputError: the page cannot be written.
    """
    run, records = read_run(folder), read_records(folder / RECORDS)
    if evaluate and not run.evaluation and (folder / SPLAT).is_file():
        run = _evaluated(run)
    unusual, values = differences(run.settings, defaults), shown_leaves(run.settings)
    health, alarms = run.summary.get("health"), run.summary.get("alarms")
    write_page(
        folder / REPORT,
        "report",
        "data:",
        title=f"{run.prompt}, {run.method}",
        run=run,
        **_first(run, records[-1] if records else {}),
        sheet=_there(run, "views.png", f"{run.prompt}, {SIDES}"),
        strips=_strips(run),
        measured=partial(number, run.evaluation),
        judge=label_of(str(run.evaluation[JUDGE])) if JUDGE in run.evaluation else None,
        growth=growth(snapshots(folder)),
        start=_there(run, "start.png", "what the run started from"),
        late=_there(run, "preview.png", "training views of a late step"),
        stages=_stages(run),
        curves=_course(records),
        health=partial(number, health) if isinstance(health, dict) else None,
        alarms=alarms if isinstance(alarms, list) else [],
        phases=_phases(run),
        steps=number(run.summary, "iterations") or 1,
        rest=REST,
        unusual=[(name, as_yaml(values[name]), as_yaml(usual)) for name, usual in unusual.items()],
        yaml=marked_yaml(run.settings, unusual),
        files=_files(folder),
        versions=_versions(run),
        init=name_in(run.settings.get("init")),
    )
    return folder / REPORT


def _evaluated(run: Run) -> Run:
    figures = measure_run(run)
    keep_figures(run.folder, figures)
    return replace(run, evaluation=figures)


def _there(run: Run, name: str, alt: str) -> Picture | None:
    path = run.folder / name
    return picture(path, alt) if path.is_file() else None


def _first(run: Run, last: Mapping[str, Any]) -> dict[str, Any]:
    """The turning object, what floats loose of it, and the figures asked for first; ``last`` is the last record."""
    film, splat = run.folder / "turntable.mp4", run.folder / SPLAT
    return {
        "video": video(film) if film.is_file() else None,
        "loose": floating(splat) if splat.is_file() else None,
        "splat": splat.is_file(),
        "summary": partial(number, run.summary),
        "seconds": number(run.summary, "seconds") or number(last, "seconds"),
        "gaussians": number(run.summary, "gaussians") or number(last, "gaussians"),
        "most": number(last, "gaussians") or 0,
        "logged": last.get("step", 0),
        "planned": text_of(run.settings.get("iterations")),
    }


def _strips(run: Run) -> list[tuple[Picture, str]]:
    """The splat and the true object, each with a caption; none without a splat, or of a prompt of another world.

    Raises:
        BadFile: the splat cannot be read.
    """
    splat = run.folder / SPLAT
    if "iou" not in run.evaluation or not splat.is_file():
        return []
    try:
        ours, true = beside_truth(splat, run.prompt)
    except PromptError:
        return []
    return [(ours, "the splat, from cameras that no step has seen"), (true, "the true object")]


def _stages(run: Run) -> list[list[str]]:
    """Method, steps, views and pixels of each stage, in order; the finish is the last of them."""
    stages = run.summary.get("stages")
    known = [stage for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []
    return [
        [label_of(str(stage.get(name, "?"))) for name in ("method", "iterations", "views", "resolution")]
        for stage in known
    ]


def _course(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """A curve for every figure of the records, of which a thousand are drawn at most; None of fewer than two steps."""
    count = min(POINTS, len(records))
    drawn = [records[place * (len(records) - 1) // max(1, count - 1)] for place in range(count)]
    if not drawn or drawn[0]["step"] >= drawn[-1]["step"]:
        return None
    steps, seconds = [record["step"] for record in drawn], [number(record, "seconds") for record in drawn]
    charts = []
    for name in dict.fromkeys(name for record in drawn for name in record if name not in NOT_CURVES):
        values = [number(record, name) for record in drawn]
        if sum(value is not None for value in values) > 1:
            charts.append(curve(TITLES.get(name, name.replace("_", " ")), steps, values, seconds))
    return charts


def _phases(run: Run) -> list[dict[str, Any]]:
    """Where the time went, by phase; what is not a step's is the rest."""
    seconds = run.summary.get("seconds_by_phase")
    spent = {name: number(seconds, name) or 0.0 for name in seconds} if isinstance(seconds, dict) else {}
    if not any(spent.values()):
        return []
    spent[REST] = (number(run.summary, "seconds") or 0.0) - sum(spent.values())
    return bar({name: value for name, value in spent.items() if value > 0})


def _files(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """The files beside the report: name, a link that holds as long as it lies there, what it is, and its size."""
    others = sorted(path.name for path in folder.glob("gaussians.*") if path.name not in FILES)
    for name, what in {**FILES, **dict.fromkeys(others, "the splat in another format")}.items():
        if (folder / name).is_file():
            yield name, quote(name), what, _size(folder / name)


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size:,} B" if size < 10_000 else f"{size / 1000:,.0f} kB" if size < 1e7 else f"{size / 1e6:,.1f} MB"


def _versions(run: Run) -> list[str]:
    """Of what the run was made, and on what."""
    versions, device, threads = run.summary.get("versions"), run.summary.get("device"), number(run.summary, "threads")
    known = [f"Python {run.summary['python']}"] if run.summary.get("python") else []
    known += [f"{name} {value}" for name, value in versions.items()] if isinstance(versions, dict) else []
    if device:
        known.append(f"on {device}" + (f" with {threads} thread{'s' * (threads != 1)}" if threads else ""))
    return known
