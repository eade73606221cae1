"""The folder of a run as `generate` leaves it, made without one; and a page taken apart."""

from __future__ import annotations

import html.parser
import json
import math
from pathlib import Path
from typing import Any

from gsdistill.disk.write import write_json, write_text
from gsdistill.export.pictures import write_contact_sheet, write_turntable
from gsdistill.export.ply import Ply
from gsdistill.run.config import RunConfig
from gsdistill.scene.read import read_splat
from gsdistill.settings.config import defaults, from_dict, to_dict
from gsdistill.settings.yaml import dump

CHAIR = Path(__file__).parents[1] / "data" / "chair.ply"
DEFAULTS = defaults(RunConfig)
PHASES = {"render": 0.5, "network": 8.0, "densify": 0.0}


def losses(steps: int = 12) -> list[dict[str, Any]]:
    """Records whose loss falls by a factor of 1000, with one that was not finite."""
    return [
        {
            "step": 10 * place,
            "loss": None if place == 3 else 1000.0 * math.exp(-0.6 * place),
            "gaussians": 600 + place,
            "finite": place != 3,
            "seconds": 0.26 * place,
            "timestep": 500.5,
        }
        for place in range(1, steps + 1)
    ]


def make_run(
    folder: Path, prompt: str = "a blue chair", finished: bool = True, video: bool = False, **settings: Any
) -> Path:
    """Write a run of the chair of ``tests/data``; ``settings`` are those of RunConfig."""
    splat = read_splat(CHAIR)
    config = from_dict(RunConfig, {"prompt": prompt, "prior": "shapes", "iterations": 120, **settings})
    write_text(folder / "config.yaml", dump(to_dict(config)))
    write_text(folder / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in losses()))
    Ply().write(splat, folder / "gaussians.ply")
    for step in (0, 60, 120):
        Ply().write(splat, folder / "snapshots" / f"step-{step:06d}.ply")
    write_contact_sheet(splat, folder / "views.png", size=48)
    if video:
        write_turntable(splat, folder / "turntable.mp4", size=64, frames=30)
    if finished:
        summary = {
            "prompt": prompt,
            "gaussians": 554,
            "seconds": 10.0,
            "seconds_by_phase": PHASES,
            "iterations": 120,
            "iterations_per_second": 14.1,
            "skipped_steps": 1,
            "network_evaluations": 2400,
            "peak_memory_mb": 481,
            "device": "cpu",
            "threads": 1,
            "versions": {"gsdistill": "0.1.0"},
        }
        write_json(folder / "summary.json", summary)
    return folder


class Page(html.parser.HTMLParser):
    """The elements of a page, as (name, attributes, text directly inside), in the order in which they begin."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[int] = []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(len(self.elements))
        self.elements.append((tag, dict(attrs), []))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.open:
            self.elements[self.open[-1]][2].append(data)

    def all(self, tag: str, **wanted: str) -> list[tuple[dict[str, str | None], str]]:
        """Attributes and text of the elements of a name, with the attributes wanted (``class_`` is ``class``)."""
        attributes = {name.rstrip("_"): value for name, value in wanted.items()}
        return [
            (found, "".join(text))
            for name, found, text in self.elements
            if name == tag and attributes.items() <= found.items()
        ]

    @property
    def values(self) -> set[str]:
        """Every value of every attribute."""
        return {value for _, attributes, _ in self.elements for value in attributes.values() if value}
