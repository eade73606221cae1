"""The gallery: a page of all runs below a folder. Its links are relative, so that it works on any server and disk.

A card shows one side of the object, from the first row of the run's contact sheet. Under the pointer, with the focus or
after a touch, the style moves the picture from side to side, and the script covers it with the turntable if there is
one. Only the page is written, and a browser loads pictures when they come into sight.
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


__all__ = ["Key", "find_runs", "write_gallery"]

PAGE, VIDEO = "gallery.html", "turntable.mp4"
LINKS = {"report.html": "report", SPLAT: "splat", "views.png": "pictures"}


@dataclass(frozen=True)
class Key:
    """A property by which cards are sorted, and how a card shows it."""

    label: str
    falling: bool = False  # whether the largest value comes first, as the best or the newest
    unit: str = ""
    on_card: bool = False  # whether a card shows it


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


def write_gallery(below: Path, console: Console, output: Path | None = None, title: str | None = None) -> None:
    """Write the page of all runs below a folder to ``output``; without it, to gallery.html in that folder.

    ``title`` is by default the folder's name. A run that cannot be read is listed with the reason.

    Raises:
        BadFile: there is no such folder, or no run in it. OutputError: the page cannot be written.
    """
    if not below.is_dir():
        raise BadFile(f"{below} is not a folder; name one that holds runs, such as outputs")
    page = output or below / PAGE
    cards: list[Card] = []
    broken: list[tuple[str, UserError]] = []
    for folder, run in find_runs(below):
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
        sortable={name for card in cards for name in card.values},
        keys=KEYS,
        links=LINKS,
        count=_count(len(cards), "run"),
        broken=broken,
    )
    console.print(Text(f"{page}: {_count(len(cards), 'run')}, {page.stat().st_size:,} bytes"), soft_wrap=True)
    if broken:
        console.print(Text(f"{_count(len(broken), 'folder')} could not be read; the page says why"))


def find_runs(folder: Path) -> Iterator[tuple[Path, Run | UserError]]:
    """Yield the folders of runs at any depth of ``folder``, sorted, each with its run or why it cannot be read.

    ``folder`` itself may be one. Hidden folders, links and the folders of runs are not searched; a folder that cannot
    be read as a run is, because it may be something else.
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
    link: str  # of its folder
    values: dict[str, str | int | float]  # by the names of KEYS
    files: frozenset[str]  # names of its files that the page uses


def _card(run: Run, link: str) -> Card:
    files = frozenset(name for name in (VIDEO, *LINKS) if (run.folder / name).is_file())
    return Card(run, link, _values(run), files)


def _values(run: Run) -> dict[str, str | int | float]:
    """The values of KEYS that a run has."""
    texts = {"prompt": run.prompt, "method": run.method, "prior": run.prior}
    names = {"evaluations": "network_evaluations", "memory": "peak_memory_mb"}
    sources: Mapping[str, object] = {**run.settings, **run.evaluation, **run.summary}
    figures = {key: number(sources, names.get(key, key)) for key in KEYS if key not in texts}
    figures["date"] = round(run.when.timestamp())
    return {**texts, **{key: value for key, value in figures.items() if value is not None}}


def _link(folder: Path, home: Path) -> str:
    """The link from the page to a folder; with ``./`` in front no browser takes a name with a colon for a scheme."""
    return f"./{quote(os.fsencode(Path(os.path.relpath(folder, home)).as_posix()))}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
