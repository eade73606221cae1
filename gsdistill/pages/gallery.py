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
from gsdistill.pages.markup import write_page
from gsdistill.run.read import SPLAT, Run, is_run, number, read_run

if TYPE_CHECKING:
    from rich.console import Console


__all__ = ["Key", "gallery", "runs_below"]

PAGE, VIDEO = "gallery.html", "turntable.mp4"
LINKS = {"report.html": "report", SPLAT: "splat", "views.png": "pictures"}


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
    cards: list[Card] = []
    broken: list[tuple[str, UserError]] = []
    for folder, run in runs_below(below):
        link = _link(folder, page.parent)
        if isinstance(run, Run):
            cards.append(_card(run, link))
        else:
            broken.append((link[2:], run))
    if not cards and not broken:
        raise BadFile(f"{below} holds no run at any depth; `gsdistill generate` makes one")
    write_page(
        page,
        "gallery",
        "data: 'self'",
        title=title or below.resolve().name,
        cards=sorted(cards, key=lambda card: (card.run.prompt, card.run.method)),
        methods=sorted({card.run.method for card in cards}),
        known={name for card in cards for name in card.values},
        keys=KEYS,
        links=LINKS,
        count=_count(len(cards), "run"),
        broken=broken,
    )
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
        run: Run | UserError
        try:
            run = read_run(Path(here))
            folders.clear()
        except UserError as error:
            run = error
        yield Path(here), run


@dataclass(frozen=True)
class Card:
    """A run on the page."""

    run: Run
    link: str
    values: dict[str, str | int | float]  # by which it is sorted
    files: frozenset[str]  # that it has


def _card(run: Run, link: str) -> Card:
    there = {name for name in (VIDEO, *LINKS) if (run.folder / name).is_file()}
    return Card(run, link, _values(run), frozenset(there))


def _values(run: Run) -> dict[str, str | int | float]:
    """What a run can be sorted by, as far as it has it."""
    texts = {"prompt": run.prompt, "method": run.method, "prior": run.prior}
    names = {"evaluations": "network_evaluations", "memory": "peak_memory_mb"}
    sources: Mapping[str, object] = {**run.settings, **run.evaluation, **run.summary}
    figures = {key: number(sources, names.get(key, key)) for key in KEYS if key not in texts}
    figures["date"] = round(run.when.timestamp())
    return {**texts, **{key: value for key, value in figures.items() if value is not None}}


def _link(folder: Path, home: Path) -> str:
    """The folder's address, relative to the page; ``./`` in front keeps a colon in a name from being a scheme."""
    return f"./{quote(os.fsencode(Path(os.path.relpath(folder, home)).as_posix()))}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
