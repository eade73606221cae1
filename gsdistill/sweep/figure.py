"""A comparison as pictures: figure.png with means, intervals and prompts, and sheet.png with views of the splats."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsdistill.core.structs import Cameras
from gsdistill.disk.write import atomic_path
from gsdistill.evaluation.truth import truth_views
from gsdistill.export.pictures import shots, to_bytes
from gsdistill.run.read import SPLAT
from gsdistill.scene.read import read_splat
from gsdistill.scene.viewpoints import look_at_origin
from gsdistill.sweep.plan import folder, world_of_sweep
from gsdistill.sweep.results import Comparison, Entry
from gsdistill.sweep.settings import shown, steps_of

__all__ = ["draw_figure", "draw_sheet", "wrapped"]

# The panels: figure, title, and whether each prompt is drawn as a dot. Those of TRUTH need the truth.
TRUTH = (("iou", "silhouette IoU", True), ("saturation", "saturation (dashed: truth)", True))
ALONE = (("silhouette_agreement", "neighbouring silhouettes' IoU", True), ("saturation", "saturation", True))
PRIOR = (("fronts", "fronts that the prior sees", True), ("prompt_fit", "prompt fit (below 0: it fits)", True))
PANELS = (
    ("rms_between_seeds", "RMS between seeds", False),
    ("frechet_between_seeds", "Frechet between seeds", False),
    ("seconds", "seconds per run", False),
)
STEPS, EVALUATIONS, DOTS, INK = "#2a6f97", "#c8553d", "#b8b8b8", "#333333"

WHITE = (1.0, 1.0, 1.0)
AZIMUTHS, ELEVATION, DISTANCE, FOV = (35.0, 215.0), 25.0, 3.2, 40.0  # the two views of the sheet
WIDEST, GAP, TEXT = 220, 8, 13  # pixels: widest column of prompts, space around a label, size of its letters


def draw_figure(comparison: Comparison, path: Path) -> None:
    """Draw a panel for each figure, with a line for each method: mean, 95 % interval, and the prompts as dots.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    entries, true = comparison.entries, comparison.true_saturation
    panels = (*(ALONE if true is None else TRUTH), *(PRIOR if comparison.settings.prior_figures else ()), *PANELS)
    figure = Figure(figsize=(3.0 * len(panels), 1.4 + 0.34 * len(entries)), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    for axes, (name, title, dots) in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        for line, entry in enumerate(entries):
            _draw_line(axes, line, entry, name, dots)
        if name == "saturation" and true is not None:
            axes.axvline(true, color=INK, linewidth=1, linestyle="--")
        axes.set_title(title, fontsize=10, color=INK)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="x", color="#e5e5e5", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(labelsize=9, colors=INK, left=False)
        axes.set_yticks(range(len(entries)), [_label(entry) for entry in entries])
    figure.axes[0].set_ylim(len(entries) - 0.4, -0.6)
    figure.supxlabel(
        "mean and 95 % interval; grey: prompts; blue: equal steps; red: fewer steps, for equal network evaluations",
        fontsize=9,
        color=INK,
    )
    with atomic_path(path) as draft:
        figure.savefig(draft, format="png")


def draw_sheet(comparison: Comparison, path: Path, size: int = 96) -> None:
    """Draw a line for each prompt: two views of the true object, if it is known, and of the splat of each method.

    The splats are those of the first seed; runs that have failed or are not finished are blank. A view has ``size``
    pixels in width and height.

    Raises:
        OutputError: the file cannot be written. BadFile: a splat cannot be read.
    """
    from matplotlib.font_manager import findfont
    from PIL import Image, ImageDraw, ImageFont

    settings, cameras = comparison.settings, _cameras(size)
    font = ImageFont.truetype(findfont("DejaVu Sans"), TEXT)  # it has letters of most alphabets
    with_truth = comparison.true_saturation is not None
    columns = [*["truth"] * with_truth, *map(_label, comparison.entries)]
    names = [wrapped(name, font, 2 * size - GAP) for name in columns]
    prompts = {prompt: wrapped(prompt, font, WIDEST) for prompt in settings.all_prompts}
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    boxes = {label: ruler.multiline_textbbox((0, 0), label, font) for label in (*names, *prompts.values())}
    heights = [max(size, math.ceil(boxes[label][3]) + GAP) for label in prompts.values()]
    left = math.ceil(max(boxes[label][2] for label in prompts.values())) + 2 * GAP
    top = math.ceil(max(boxes[name][3] for name in names)) + 2 * GAP
    sheet = Image.new("RGB", (left + 2 * size * len(names), top + sum(heights)), "white")
    pen = ImageDraw.Draw(sheet)
    for column, name in enumerate(names):
        pen.text((left + size * (2 * column + 1), top / 2), name, fill=INK, font=font, anchor="mm", align="center")
    for (prompt, label), height in zip(prompts.items(), heights, strict=True):
        pen.text((GAP, top + height / 2), label, fill=INK, font=font, anchor="lm")
        for column, pixels in enumerate(_pictures(comparison, prompt, cameras, with_truth)):
            sheet.paste(Image.fromarray(pixels), (left + 2 * size * column, top + (height - size) // 2))
        top += height
    with atomic_path(path) as draft:
        sheet.save(draft, format="PNG")


def wrapped(text: str, font: Any, width: float) -> str:
    """Break the text into lines of at most ``width`` pixels in a font of Pillow; wider words are broken too."""
    lines = [""]
    for word in text.split():
        if font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] = f"{lines[-1]} {word}".lstrip()
            continue
        lines += [""] * bool(lines[-1])
        for letter in word:
            lines += [""] * (font.getlength(lines[-1] + letter) > width and bool(lines[-1]))
            lines[-1] += letter
    return "\n".join(lines)


def _draw_line(axes: Any, line: int, entry: Entry, name: str, dots: bool) -> None:
    """Draw one method in one panel."""
    interval = entry.figures[name]
    if interval is None:
        return
    colour = STEPS if entry.equal_steps else EVALUATIONS
    if dots:
        rows = [row for row in entry.rows if row[name] is not None]
        prompts = dict.fromkeys(row["prompt"] for row in rows)
        means = [np.mean([row[name] for row in rows if row["prompt"] == prompt]) for prompt in prompts]
        axes.plot(means, [line + 0.25] * len(means), "o", color=DOTS, markersize=3.5)
    axes.plot([interval.low, interval.high], [line, line], color=colour, linewidth=2.5, solid_capstyle="round")
    axes.plot([interval.mean], [line], "o", color=colour, markersize=6)


def _pictures(comparison: Comparison, prompt: str, cameras: Cameras, with_truth: bool) -> list[np.ndarray]:
    """Two views of the truth, if it is known, and of the splat of each entry, side by side: bytes [h, 2 h, 3] each."""
    pairs = []
    if with_truth:
        pairs.append(
            np.concatenate(to_bytes(truth_views(prompt, cameras, world=world_of_sweep(comparison.settings))), axis=1)
        )
    settings = comparison.settings
    seed = settings.seeds[0]
    for entry in comparison.entries:
        if (prompt, seed, None) in [(row["prompt"], row["seed"], row["failure"]) for row in entry.rows]:
            place = folder(settings, entry.method, prompt, seed, entry.iterations, entry.finish_steps)
            pairs.append(np.concatenate(list(shots(read_splat(place / SPLAT), cameras, WHITE)), axis=1))
        else:
            pairs.append(np.full((cameras.height, 2 * cameras.width, 3), 255, dtype=np.uint8))
    return pairs


def _cameras(size: int) -> Cameras:
    ones = torch.ones(len(AZIMUTHS))
    return look_at_origin(torch.tensor(AZIMUTHS), ELEVATION * ones, DISTANCE * ones, FOV * ones, size)


def _label(entry: Entry) -> str:
    return f"{shown(entry.method)}, {steps_of(entry.iterations, entry.finish_steps)} steps"
