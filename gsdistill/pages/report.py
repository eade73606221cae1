"""The report of a run: one HTML file that holds the run's pictures, video, curves and figures.

A file that the run lacks is left out, with a word where a reader would miss it; a broken file is an error.
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
from gsdistill.pages.pictures import (
    Picture,
    draw_beside_truth,
    draw_growth,
    draw_loose,
    embed_picture,
    embed_video,
)
from gsdistill.run.measure import keep_figures, measure_run, world_of_run
from gsdistill.run.read import (
    CONFIG,
    EVALUATION,
    RECORDS,
    SPLAT,
    SUMMARY,
    Run,
    name_in,
    number,
    read_run,
    snapshots,
    text_of,
)
from gsdistill.settings.registry import label_of

__all__ = ["REPORT", "write_report"]

REPORT = "report.html"
POINTS = 1000  # of a curve, at most
TITLES = {"gaussians": "number of Gaussians", "timestep": "mean timestep of the noise"}  # others are the names
REST = "files, pictures and the start"  # the name of the time outside of the steps
NOT_CURVES = ("step", "seconds", "finite")
FILES = {
    SPLAT: "the splat, in the layout every viewer reads",
    "turntable.mp4": "one turn",
    "views.png": "eight sides at two elevations, the last one from below",
    CONFIG: "all settings; --config reads them",
    RECORDS: "the course of the run",
    SUMMARY: "times, evaluations, memory and versions",
    EVALUATION: "figures, against the truth where it is known",
}
SIDES = "from eight sides at 20 degrees above the horizon and at 60, the last one from below"


def write_report(folder: Path, defaults: Mapping[str, Any], evaluate: bool = True) -> Path:
    """Write ``report.html`` into the folder of a run, finished or not, and return its path.

    ``defaults`` are those of a run's settings; the page marks what differs from them. With ``evaluate`` a splat without
    figures is measured, against the truth where it is known, and the figures are written to ``evaluation.json``.

    Raises:
        BadFile: the folder is not that of a run, or a file in it is broken. ConfigError: its settings name a method
            that does not exist. OutputError: a file cannot be written.
    """
    run, records = read_run(folder), read_records(folder / RECORDS)
    if evaluate and not run.evaluation and (folder / SPLAT).is_file():
        run = replace(run, evaluation=measure_run(run))
        keep_figures(folder, run.evaluation)
    unusual, values = differences(run.settings, defaults), shown_leaves(run.settings)
    health, alarms = run.summary.get("health"), run.summary.get("alarms")
    write_page(
        folder / REPORT,
        "report",
        "data:",
        title=f"{run.prompt}, {run.method}",
        run=run,
        **_first(run, records[-1] if records else {}),
        sheet=_embed(folder / "views.png", f"{run.prompt}, {SIDES}"),
        strips=_strips(run),
        measured=partial(number, run.evaluation),
        judge=label_of(str(run.evaluation[JUDGE])) if JUDGE in run.evaluation else None,
        growth=draw_growth(snapshots(folder)),
        start=_embed(folder / "start.png", "what the run started from"),
        late=_embed(folder / "preview.png", "training views of a late step"),
        stages=_stages(run),
        curves=_curves(records),
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


def _embed(path: Path, alt: str) -> Picture | None:
    return embed_picture(path, alt) if path.is_file() else None


def _first(run: Run, last: Mapping[str, Any]) -> dict[str, Any]:
    """The top of the page: the turning object, its loose parts and the main figures; ``last`` is the last record."""
    film, splat = run.folder / "turntable.mp4", run.folder / SPLAT
    return {
        "video": embed_video(film) if film.is_file() else None,
        "loose": draw_loose(splat) if splat.is_file() else None,
        "splat": splat.is_file(),
        "summary": partial(number, run.summary),
        "seconds": number(run.summary, "seconds") or number(last, "seconds"),
        "gaussians": number(run.summary, "gaussians") or number(last, "gaussians"),
        "most": number(last, "gaussians") or 0,
        "logged": last.get("step", 0),
        "planned": text_of(run.settings.get("iterations")),
    }


def _strips(run: Run) -> list[tuple[Picture, str]]:
    """The splat and the true object, each with a caption; empty without a splat, or if the truth is not known.

    Raises:
        BadFile: the splat cannot be read.
    """
    splat = run.folder / SPLAT
    if "iou" not in run.evaluation or not splat.is_file():
        return []
    try:
        ours, true = draw_beside_truth(splat, run.prompt, world_of_run(run))
    except PromptError:
        return []
    return [(ours, "the splat, from cameras that no step has used"), (true, "the true object")]


def _stages(run: Run) -> list[list[str]]:
    """Method, steps, views and pixels of each stage, in order; a finish is the last stage."""
    stages = run.summary.get("stages")
    return [
        [label_of(str(stage.get(name, "?"))) for name in ("method", "iterations", "views", "resolution")]
        for stage in (stages if isinstance(stages, list) else [])
        if isinstance(stage, dict)
    ]


def _curves(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """A curve for every figure of the records, of at most a thousand points; None for fewer than two steps."""
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
    """The seconds of each phase of the steps, and of the rest, as a bar; empty if they are not known."""
    phases = run.summary.get("seconds_by_phase")
    seconds = {name: number(phases, name) or 0.0 for name in phases} if isinstance(phases, dict) else {}
    if not any(seconds.values()):
        return []
    seconds[REST] = (number(run.summary, "seconds") or 0.0) - sum(seconds.values())
    return bar({name: value for name, value in seconds.items() if value > 0})


def _files(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """The files beside the report: name, link relative to the report, what the file is, and its size."""
    others = sorted(path.name for path in folder.glob("gaussians.*") if path.name not in FILES)
    for name, what in {**FILES, **dict.fromkeys(others, "the splat in another format")}.items():
        if (folder / name).is_file():
            yield name, quote(name), what, _size(folder / name)


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size:,} B" if size < 10_000 else f"{size / 1000:,.0f} kB" if size < 1e7 else f"{size / 1e6:,.1f} MB"


def _versions(run: Run) -> list[str]:
    """The versions of Python and the packages that made the run, and the device."""
    versions, device, threads = run.summary.get("versions"), run.summary.get("device"), number(run.summary, "threads")
    lines = [f"Python {run.summary['python']}"] if run.summary.get("python") else []
    lines += [f"{name} {value}" for name, value in versions.items()] if isinstance(versions, dict) else []
    if device:
        lines.append(f"on {device}" + (f" with {threads} thread{'s' * (threads != 1)}" if threads else ""))
    return lines
