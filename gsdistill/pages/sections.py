"""The sections of a report, each from what a run has left; one that has nothing to show is empty."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gsdistill.core.errors import PromptError
from gsdistill.evaluation.figures import JUDGE
from gsdistill.pages.charts import COLOURS, Curve, bar, curve_figure, shown
from gsdistill.pages.choices import differences, marked_yaml, shown_leaves
from gsdistill.pages.markup import Html, element, joined
from gsdistill.pages.pictures import beside_truth, growth, picture
from gsdistill.run.folder import CONFIG, RECORDS, SPLAT, SUMMARY, Run, number, snapshots
from gsdistill.settings.registry import label_of
from gsdistill.settings.yaml import dump

__all__ = [
    "absent",
    "choices",
    "course",
    "figure_list",
    "files",
    "growing",
    "health",
    "stages",
    "time",
    "truth",
    "views",
]

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

Row = tuple[str, "str | int | float | None", str, str]  # name, value, unit, what it means


def figure_list(rows: Iterable[Row]) -> Html:
    """Figures with their names; those that are None are left out."""
    parts = []
    for name, value, unit, meaning in rows:
        if value is not None:
            text = value if isinstance(value, str) else shown(value)
            note = element("small", {}, meaning) if meaning else ""
            parts.append(element("div", {}, element("dt", {}, name), element("dd", {}, f"{text}{unit}", note)))
    return element("dl", {"class": "figures"}, *parts)


def absent(word: str) -> Html:
    """The word where something would be missed."""
    return element("p", {"class": "quiet"}, word)


def views(run: Run) -> Html:
    """The contact sheet."""
    path = run.folder / "views.png"
    if not path.is_file():
        return _section("All around", absent("No pictures: the run has left no views.png."))
    sheet = picture(path, f"{run.prompt}, from eight sides at 20 degrees above the horizon and at 60, last from below")
    words = (
        "From the left: the front, and on in equal steps of azimuth. Above: 20 degrees over the horizon; below: 60, "
    )
    caption = element("figcaption", {}, f"{words}but the last, which is from under the object.")
    plate = element("div", {"class": "plate wide"}, sheet)
    return _section("All around", element("figure", {"class": "strips"}, plate, caption))


def truth(run: Run) -> Html:
    """The splat and the true object, and the figures that compare them; empty where there are none."""
    found = run.evaluation
    if "iou" not in found:
        return Html("")
    name = "as the prompt says" if found.get("name_right") is True else "the prompt says otherwise"
    colours = "colours as named" if found.get("colour_right") is True else "colours not as named"
    rows = [
        ("looks like", str(found["name"]) if "name" in found else None, "", name),
        ("silhouette IoU", number(found, "iou"), "", "of 32 held-out views; 1 is equal"),
        ("unseen IoU", number(found, "unseen_iou"), "", "of 16 views from below and above"),
        ("PSNR", number(found, "psnr"), " dB", "of whole pictures over white; more is better"),
        ("colour error", number(found, "colour_error"), "", f"mean of RGB, 0 to 1; {colours}"),
        (
            "surface Chamfer",
            number(found, "surface_chamfer"),
            "",
            "of what is seen; the object has radius 1",
        ),
        ("centre Chamfer", number(found, "centre_chamfer"), "", "of the Gaussians, which lie below the surface"),
        ("floaters", number(found, "floaters"), "", "share of opacity away from the surface"),
    ]
    return _section("Beside the truth", _strips(run), figure_list(rows))


def alone(run: Run) -> Html:
    """What the splat shows by itself, and what a prior sees in it; empty where neither is measured."""
    found = run.evaluation
    rows = [
        ("high frequencies", number(found, "high_frequency"), "", "share of the luminance; noise has more"),
        ("loose", number(found, "loose"), "", "share of opacity apart from the largest part; 0 is best"),
        ("silhouettes agree", number(found, "silhouette_agreement"), "", "IoU of neighbouring views; more is better"),
        ("worst of them", number(found, "silhouette_worst"), "", "near 0 the outline jumps"),
        ("saturation", number(found, "saturation"), "", "HSV, mean"),
        (
            "judge",
            label_of(str(found[JUDGE])) if JUDGE in found else None,
            "",
            "the prior whose word the next figures are",
        ),
        ("fronts", number(found, "fronts"), "", "that the prior sees from all around; 1 is right"),
        ("views agree", number(found, "view_agreement"), "", "share that the prior sees as their cameras do"),
        ("prompt fit", number(found, "prompt_fit"), "", "denoising error less that of no prompt; below 0 it fits"),
    ]
    if all(value is None for _, value, _, _ in rows):
        return Html("")
    return _section("By itself", figure_list(rows))


def _strips(run: Run) -> Html:
    splat = run.folder / SPLAT
    if not splat.is_file():
        return absent("No pictures beside the truth: the splat is gone.")
    try:
        ours, true = beside_truth(splat, run.prompt)
    except PromptError:
        return Html("")
    strips = []
    for image, caption in ((ours, "the splat, from cameras that no step has seen"), (true, "the true object")):
        plate = element("div", {"class": "plate wide"}, image)
        strips.append(element("figure", {"class": "strips"}, plate, element("figcaption", {}, caption)))
    return element("div", {"class": "strips"}, *strips)


def growing(run: Run) -> Html:
    """How the splat came about: its snapshots, or else its start; and the training views of a late step."""
    parts, start, late = [], run.folder / "start.png", run.folder / "preview.png"
    if found := snapshots(run.folder):
        stages = []
        for step, image in growth(found):
            plate, caption = element("div", {"class": "plate"}, image), element("figcaption", {}, f"step {step}")
            stages.append(element("li", {}, element("figure", {}, plate, caption)))
        parts.append(element("ol", {"class": "stages"}, *stages))
    elif start.is_file():
        parts.append(element("figure", {"class": "plate"}, picture(start, "what the run started from")))
    if late.is_file():
        caption = element("figcaption", {}, "what the prior saw of a late step: the training views")
        parts.append(element("figure", {"class": "preview"}, picture(late, "training views of a late step"), caption))
    return _section("How it came about", *parts) if parts else Html("")


def stages(run: Run) -> Html:
    """The stages of a run of several, in order; the finish is the last of them."""
    held = run.summary.get("stages")
    found = [stage for stage in held if isinstance(stage, dict)] if isinstance(held, list) else []
    if len(found) < 2:
        return Html("")
    names = ("method", "iterations", "views", "resolution")
    cells = [[label_of(str(stage.get(name, "?"))) for name in names] for stage in found]
    rows = [element("tr", {}, *(element("td", {}, cell) for cell in row)) for row in cells]
    return _section("Stages", _table(("method", "steps", "views", "pixels"), rows))


def course(records: Sequence[Mapping[str, Any]]) -> Html:
    """A curve for every figure of the records, of which a thousand are drawn at most."""
    count = min(POINTS, len(records))
    kept = [records[place * (len(records) - 1) // max(1, count - 1)] for place in range(count)]
    if not kept or kept[0]["step"] >= kept[-1]["step"]:
        return _section("The course", absent("No curves: fewer than two steps have been logged."))
    names = dict.fromkeys(name for record in kept for name in record if name not in NOT_CURVES)
    charts = []
    for name in names:
        values = [number(record, name) for record in kept]
        if sum(value is not None for value in values) > 1:
            title = TITLES.get(name, name.replace("_", " "))
            seconds = [number(record, "seconds") for record in kept]
            charts.append(curve_figure(Curve(title, "", [record["step"] for record in kept], values, seconds)))
    return _section("The course", element("div", {"class": "charts"}, *charts))


def health(run: Run) -> Html:
    """What the run has found of itself, its alarms first; empty where it has not looked."""
    found, told = run.summary.get("health"), run.summary.get("alarms")
    if not isinstance(found, dict):
        return Html("")
    share = {name: f"{100 * (number(found, name) or 0.0):.0f} %" for name in ("skipped", "pruned_share", "garish")}
    drift = f"; {shown(number(found, 'drift') or 0.0)} times that of the start"
    rows = [
        ("steps skipped", share["skipped"], "", "for a gradient that was not finite"),
        ("Gaussians grown", number(found, "grown"), "", "duplicated or split"),
        ("Gaussians pruned", number(found, "pruned"), "", f"{share['pruned_share']} of all that there have been"),
        ("extent", number(found, "extent"), "", f"radius that holds 95 % of what is shown{drift}"),
        ("coverage", number(found, "coverage"), "", "area shown, of the disk of that radius"),
        ("saturation", number(found, "saturation"), "", f"HSV, mean; {share['garish']} far outside of the colours"),
    ]
    lines = [str(line) for line in told] if isinstance(told, list) else []
    alarms = [element("p", {"class": "bad"}, line) for line in lines]
    return _section("Health", *(alarms or [absent("No alarm.")]), figure_list(rows))


def time(run: Run) -> Html:
    """Where the time went, by phase; what is not a step's is the rest."""
    phases = run.summary.get("seconds_by_phase")
    spent = {name: number(phases, name) or 0.0 for name in phases} if isinstance(phases, dict) else {}
    if not any(spent.values()):
        return Html("")
    rest = (number(run.summary, "seconds") or 0.0) - sum(spent.values())
    if rest > 0:
        spent[REST] = rest
    spent = {name: value for name, value in spent.items() if value > 0}
    steps, total = number(run.summary, "iterations") or 1, sum(spent.values())
    rows = []
    for place, (name, value) in enumerate(spent.items()):
        each = f"{1000 * value / steps:.2f}" if name != REST else ""
        swatch = element("span", {"class": f"swatch part-{place % COLOURS}"})
        cells = (f"{value:.2f}", each, f"{100 * value / total:.0f} %")
        numbers = [element("td", {"class": "number"}, cell) for cell in cells]
        rows.append(element("tr", {}, element("th", {"scope": "row"}, swatch, name), *numbers))
    table = _table(("phase", "seconds", "ms a step", "share"), rows)
    return _section("Where the time went", bar(spent, "seconds by phase; the table below has them"), table)


def choices(run: Run, defaults: Mapping[str, Any]) -> Html:
    """The settings, and those that differ from the defaults."""
    unusual = differences(run.settings, defaults)
    values = shown_leaves(run.settings)
    rows = [
        element("tr", {}, *(element("td", {}, element("code", {}, text)) for text in (name, *map(_plain, pair))))
        for name, pair in ((name, (values[name], usual)) for name, usual in unusual.items())
    ]
    yaml = element("pre", {"tabindex": 0}, element("code", {}, marked_yaml(run.settings, unusual)))
    everything = element("details", {}, element("summary", {}, "All settings, as YAML"), yaml)
    if not rows:
        return _section("Settings", element("p", {}, "All are the defaults."), everything)
    return _section("Settings that differ from the defaults", _table(("setting", "value", "default"), rows), everything)


def files(run: Run) -> Html:
    """The files beside the report, with links that hold as long as they lie there."""
    found = {name: what for name, what in FILES.items() if (run.folder / name).is_file()}
    others = sorted(path.name for path in run.folder.glob("gaussians.*") if path.name not in found)
    found.update(dict.fromkeys(others, "the splat in another format"))
    rows = []
    for name, what in found.items():
        link = element("a", {"href": quote(name)}, element("code", {}, name))
        size = element("td", {"class": "number"}, _size(run.folder / name))
        rows.append(element("tr", {}, element("td", {}, link), element("td", {}, what), size))
    return _section("Files beside this page", _table(("file", "what it is", "size"), rows))


def _section(title: str, *parts: str) -> Html:
    name = re.sub(r"\W+", "-", title.lower())
    return element("section", {"aria-labelledby": name}, element("h2", {"id": name}, title), *parts)


def _table(titles: Sequence[str], rows: Sequence[Html]) -> Html:
    """A table whose columns of numbers stand to the right."""
    numbers = ("seconds", "ms a step", "share", "size")
    heads = (element("th", {"scope": "col", "class": "number" if t in numbers else None}, t) for t in titles)
    head = element("thead", {}, element("tr", {}, *heads))
    return element("div", {"class": "scroll"}, element("table", {}, head, element("tbody", {}, joined(rows, "\n"))))


def _plain(value: Any) -> str:
    """A setting's value as YAML writes it."""
    return dump({"": value}).partition(":")[2].strip()


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size:,} B" if size < 10_000 else f"{size / 1000:,.0f} kB" if size < 1e7 else f"{size / 1e6:,.1f} MB"
