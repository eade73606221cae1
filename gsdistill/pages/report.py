"""The report of a run: one HTML file with its pictures, its video, its curves and its figures inside.

What a run has not left is left out, with a word where it would be missed; a file that is there but broken is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gsdistill.disk.read import read_records
from gsdistill.pages import sections
from gsdistill.pages.charts import shown
from gsdistill.pages.markup import Html, element, joined, part, write_page
from gsdistill.pages.pictures import floating, video
from gsdistill.run.folder import RECORDS, SPLAT, Run, named, number, read_run, told
from gsdistill.run.measure import keep_figures, measure

__all__ = ["REPORT", "write_report"]

REPORT = "report.html"


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
    body = joined(
        [
            _header(run),
            element(
                "main",
                {},
                _hero(run, records),
                sections.views(run),
                sections.truth(run),
                sections.alone(run),
                sections.growing(run),
                sections.stages(run),
                sections.course(records),
                sections.health(run),
                sections.time(run),
                sections.choices(run, defaults),
                sections.files(run),
            ),
        ],
        "\n",
    )
    body = joined([body, _footer(run, len(body))], "\n")
    style = part("page.css") + part("report.css")
    write_page(folder / REPORT, f"{run.prompt}, {run.method}", body, style, part("report.js"), "data:")
    return folder / REPORT


def _evaluated(run: Run) -> Run:
    figures = measure(run)
    keep_figures(run.folder, figures)
    return replace(run, evaluation=figures)


def _header(run: Run) -> Html:
    if run.failure:
        state = element("span", {"class": "bad"}, f"failed: {run.failure}")
    elif run.finished:
        state = Html("finished")
    else:
        state = element("span", {"class": "bad"}, "unfinished")
    facts = f"{run.method}, prior {run.prior}, seed {run.seed}, "
    negative = run.settings.get("negative_prompt")
    return element(
        "header",
        {},
        element("p", {"class": "eyebrow"}, facts, state, f", {run.when:%Y-%m-%d %H:%M}"),
        element("h1", {"dir": "auto"}, run.prompt),
        element("p", {"class": "quiet", "dir": "auto"}, f"and not: {negative}") if negative else "",
    )


def _hero(run: Run, records: list[dict[str, Any]]) -> Html:
    """The turning object, what floats loose of it, and the figures that are asked for first."""
    path = run.folder / "turntable.mp4"
    if path.is_file():
        moving = element("figure", {"class": "plate"}, video(path, f"{run.prompt}, turning once around"))
    else:
        moving = sections.absent("No turntable: the run has left no video.")
    shape = "hero" if path.is_file() else "hero still"
    last: Mapping[str, Any] = records[-1] if records else {}
    seconds = number(run.summary, "seconds") or number(last, "seconds")
    gaussians = number(run.summary, "gaussians") or number(last, "gaussians")
    grown = number(last, "gaussians") or 0
    memory = number(run.summary, "peak_memory_mb")
    speed = number(run.summary, "iterations_per_second")
    figures = [
        ("silhouette IoU", number(run.evaluation, "iou"), "", ""),
        ("Gaussians", gaussians, "", f"of {shown(grown)}; the faint ones went" if grown > (gaussians or grown) else ""),
        ("steps", *_steps(run, last)),
        ("time", seconds, " s", f"{shown(speed)} steps a second" if speed else ""),
        ("network evaluations", number(run.summary, "network_evaluations"), "", ""),
        ("peak memory", memory, " MB", ""),
    ]
    splat = run.folder / SPLAT
    if splat.is_file() and (found := floating(splat)):
        plate = element("div", {"class": "plate"}, found[0])
        caption = element("figcaption", {}, found[1])
        moving = element("div", {"class": "strips"}, moving, element("figure", {"class": "strips"}, plate, caption))
    return element("div", {"class": shape}, moving, sections.figure_list(figures))


def _steps(run: Run, last: Mapping[str, Any]) -> tuple[str, str, str]:
    """How many steps were made, and what is to be said of them; ``last`` is the last record."""
    skipped = number(run.summary, "skipped_steps")
    if run.finished:
        return shown(number(run.summary, "iterations") or 0), "", f"{skipped} skipped, not finite" if skipped else ""
    return f"{last.get('step', 0)} of {told(run.settings.get('iterations'))}", "", "as far as logged"


def _footer(run: Run, size: int) -> Html:
    versions = run.summary.get("versions")
    named_versions = [f"{name} {value}" for name, value in versions.items()] if isinstance(versions, dict) else []
    if python := run.summary.get("python"):
        named_versions.insert(0, f"Python {python}")
    device, threads = run.summary.get("device"), number(run.summary, "threads")
    if device:
        named_versions.append(f"on {device}" + (f" with {threads} thread{'s' * (threads != 1)}" if threads else ""))
    start = named(run.settings.get("init"))
    made = f"{', '.join(named_versions)}. " if named_versions else ""
    began = f"Started from {start}. " if start else ""
    return element("footer", {}, f"{made}{began}This page is one file of about {max(1, round(size / 1000)):,} kB.")
