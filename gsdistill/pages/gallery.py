"""The gallery: a page of all runs below a folder, with links relative to it, so that it works from any server and disk.

A card's picture is the first row of the run's contact sheet, of which one side shows at a time: under the pointer, with
the focus or after a touch the style moves it from side to side, and where there is a turntable the script lays that
over it. Nothing but the page is written, and pictures are loaded when they come into sight.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from rich.text import Text

from gsdistill.core.errors import BadFile, UserError
from gsdistill.pages.charts import shown
from gsdistill.pages.markup import Html, element, joined, part, write_page
from gsdistill.run.folder import SPLAT, Run, is_run, number, read_run

if TYPE_CHECKING:
    from rich.console import Console


__all__ = ["Key", "gallery", "runs_below"]

PAGE = "gallery.html"


@dataclass(frozen=True)
class Key:
    """A figure to sort by, and how a card shows it."""

    label: str
    falling: bool = False  # whether the best or the newest is the largest
    unit: str = ""
    on_card: bool = False


KEYS = {
    "prompt": Key("prompt"),
    "method": Key("method"),
    "prior": Key("prior"),
    "seed": Key("seed"),
    "date": Key("date", falling=True),
    "iou": Key("silhouette IoU", falling=True, on_card=True),
    "unseen_iou": Key("unseen IoU", falling=True, on_card=True),
    "psnr": Key("PSNR", falling=True, unit=" dB"),
    "colour_error": Key("colour error", on_card=True),
    "surface_chamfer": Key("surface Chamfer", on_card=True),
    "centre_chamfer": Key("centre Chamfer"),
    "floaters": Key("floaters"),
    "seconds": Key("time", unit=" s", on_card=True),
    "evaluations": Key("evaluations", on_card=True),
    "gaussians": Key("Gaussians", on_card=True),
    "iterations": Key("steps"),
    "memory": Key("peak memory", unit=" MB"),
}


def gallery(below: Path, console: Console, output: Path | None = None, title: str | None = None) -> None:
    """Write the page of all runs below a folder to ``output``; none: gallery.html in that folder.

    A run that cannot be read is listed with the reason.

    Raises:
        BadFile: there is no such folder, or no run in it. OutputError: the page cannot be written.
    """
    if not below.is_dir():
        raise BadFile(f"{below} is no folder; name one that holds runs, such as outputs")
    page = output or below / PAGE
    cards, broken = [], []
    for folder, run in runs_below(below):
        link = _link(folder, page.parent)
        if isinstance(run, Run):
            cards.append(_card(run, link))
        else:
            broken.append(element("li", {}, element("code", {}, link[2:]), f" {run}"))
    if not cards and not broken:
        raise BadFile(f"{below} holds no run at any depth; `gsdistill generate` makes one")
    title = title or below.resolve().name
    body = joined([_header(title, cards), _list(cards), _broken(broken)], "\n")
    write_page(page, title, body, part("page.css") + part("gallery.css"), part("gallery.js"), "data: 'self'")
    console.print(Text(f"{page}: {_count(len(cards), 'run')}, {page.stat().st_size:,} bytes"), soft_wrap=True)
    if broken:
        console.print(Text(f"{_count(len(broken), 'folder')} could not be read; the page says why"))


def runs_below(folder: Path) -> Iterator[tuple[Path, Run | UserError]]:
    """The folders of runs in ``folder``, itself among them, sorted, each with its run or why it cannot be read.

    Hidden folders, links and runs are not entered; what cannot be read may be no run, and hides none below it.
    """
    for here, folders, _ in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if not is_run(Path(here)):
            continue
        found: Run | UserError
        try:
            found = read_run(Path(here))
            folders.clear()
        except UserError as error:
            found = error
        yield Path(here), found


@dataclass(frozen=True)
class Card:
    """A run on the page: its markup, and its values by which it is sorted."""

    markup: Html
    values: dict[str, str | int | float]


def _card(run: Run, link: str) -> Card:
    values = _values(run)
    data = {f"data-{name.replace('_', '-')}": value for name, value in values.items()}
    video = f"{link}/turntable.mp4" if (run.folder / "turntable.mp4").is_file() else None
    facts = f"{run.method}, {run.prior}, seed {run.seed}"
    if run.failure or not run.finished:
        state = element("p", {"class": "state bad"}, f"failed: {run.failure}" if run.failure else "unfinished")
    else:
        state = Html("")
    name = element("h2", {"dir": "auto", "title": run.prompt}, run.prompt)
    figures = element("dl", {}, *_figures(values))
    parts = (_thumbnail(run, link, video), name, element("p", {"class": "quiet"}, facts), state, figures)
    return Card(element("li", {"class": "card", **data}, *parts, _links(run, link)), values)


def _values(run: Run) -> dict[str, str | int | float]:
    """What a run can be sorted by, as far as it has it."""
    texts = {"prompt": run.prompt, "method": run.method, "prior": run.prior}
    names = {"evaluations": "network_evaluations", "memory": "peak_memory_mb"}
    sources: Mapping[str, object] = {**run.settings, **run.evaluation, **run.summary}
    figures = {key: number(sources, names.get(key, key)) for key in KEYS if key not in texts}
    figures["date"] = round(run.when.timestamp())
    return {**texts, **{key: value for key, value in figures.items() if value is not None}}


def _thumbnail(run: Run, link: str, video: str | None) -> Html:
    """The picture that turns: a button, so that keys and touch reach it."""
    if not (run.folder / "views.png").is_file():
        return element("p", {"class": "turn empty quiet"}, "no pictures")
    source = {"src": f"{link}/views.png", "alt": "", "loading": "lazy", "decoding": "async"}
    how = {"type": "button", "class": "turn", "aria-label": f"turn {run.prompt}", "data-video": video}
    return element("button", how, element("img", source))


def _figures(values: Mapping[str, str | int | float]) -> Iterator[Html]:
    for name, key in KEYS.items():
        value = values.get(name)
        if key.on_card and isinstance(value, (int, float)):
            yield element("div", {}, element("dt", {}, key.label), element("dd", {}, f"{shown(value)}{key.unit}"))


def _links(run: Run, link: str) -> Html:
    names = {"report.html": "report", SPLAT: "splat", "views.png": "pictures"}
    there = [(name, label) for name, label in names.items() if (run.folder / name).is_file()]
    links = [element("a", {"href": f"{link}/{name}"}, label) for name, label in there]
    return element("p", {"class": "links"}, *links)


def _header(title: str, cards: list[Card]) -> Html:
    """The title and the controls, which offer what the cards have."""
    known = [name for name in KEYS if any(name in card.values for card in cards)]
    options = []
    for name in known:
        data = {"value": name.replace("_", "-"), "data-falling": KEYS[name].falling}
        options.append(element("option", data, KEYS[name].label))
    methods = sorted({str(card.values["method"]) for card in cards})
    chosen = [element("option", {"value": ""}, "all"), *(element("option", {"value": m}, m) for m in methods)]
    search = {"type": "search", "id": "search", "placeholder": "prompt, method, prior", "autocomplete": "off"}
    controls = (
        element("label", {}, "Find ", element("input", search)),
        element("label", {}, "Method ", element("select", {"id": "method"}, *chosen)),
        element("label", {}, "Sort by ", element("select", {"id": "sort"}, *options)),
        element("button", {"type": "button", "id": "order", "aria-label": "reverse the order"}, "↑"),
        element("output", {"id": "count", "class": "quiet"}, _count(len(cards), "run")),
    )
    heading = element("h1", {"dir": "auto"}, title)
    return element("header", {}, heading, element("div", {"class": "controls"}, *controls))


def _list(cards: list[Card]) -> Html:
    ordered = sorted(cards, key=lambda card: (str(card.values["prompt"]), str(card.values["method"])))
    none = element("p", {"class": "quiet", "id": "none", "hidden": True}, "No run fits.")
    return element("main", {}, element("ul", {"id": "cards"}, joined((c.markup for c in ordered), "\n")), none)


def _broken(broken: list[Html]) -> Html:
    if not broken:
        return Html("")
    return element("section", {}, element("h2", {}, "Could not be read"), element("ul", {"class": "broken"}, *broken))


def _link(folder: Path, home: Path) -> str:
    """The folder's address, relative to the page; ``./`` in front keeps a colon in a name from being a scheme."""
    return f"./{quote(os.fsencode(Path(os.path.relpath(folder, home)).as_posix()))}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
