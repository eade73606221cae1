"""A comparison as a table: in Markdown, and on the console."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gsdistill.evaluation.statistics import Interval
from gsdistill.sweep.results import Comparison, Entry
from gsdistill.sweep.settings import shown, steps_of

__all__ = ["markdown", "show"]

Cell = Callable[[Entry], str]
_REFERENCE = "Reference splats: fitted to the true pictures; what a perfect distillation would have."


def markdown(comparison: Comparison) -> str:
    """The table in Markdown, with a legend of its columns."""
    columns = _columns(comparison)
    lines = [list(columns), ["---"] * len(columns), *_cells(comparison)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{_legend(comparison)}\n"


def show(comparison: Comparison, console: Console) -> None:
    """Print the means, with a column for each method; the intervals would make the table too wide for a console."""
    (_, *rows) = _columns(comparison)
    lines = zip(rows, *(line[1:] for line in _cells(comparison)), strict=True)
    table = Table("figure", *(shown(entry.method) for entry in comparison.lines))
    for line in lines:
        table.add_row(*(Text(cell.partition(" (")[0]) for cell in line))
    console.print(table)


def _cells(comparison: Comparison) -> list[list[str]]:
    return [[cell(entry) for cell in _columns(comparison).values()] for entry in comparison.lines]


def _columns(comparison: Comparison) -> dict[str, Cell]:
    first = shown(comparison.settings.methods[0])
    columns: dict[str, Cell] = {
        "method": lambda entry: f"`{shown(entry.method)}`",
        "steps": lambda entry: steps_of(entry.iterations, entry.finish_steps) if entry.iterations else "-",
        "evaluations": lambda entry: _mean(entry.figures["network_evaluations"]),
        "equal steps": lambda entry: "x" if entry.equal_steps else "",
        "equal evaluations": lambda entry: "x" if entry.equal_evaluations else "",
        "IoU": _figure("iou", 3),
        "unseen IoU": _figure("unseen_iou", 3),
        f"IoU over {first}": _figure("iou_over_first", 3),
        "name right": _share("name_right"),
        "colour right": _share("colour_right"),
        "PSNR": _figure("psnr", 1),
        "colour error": _figure("colour_error", 3),
        "surface Chamfer": _figure("surface_chamfer", 3),
        "saturation": _figure("saturation", 3),
        "high frequency": _figure("high_frequency", 4),
        "loose": _figure("loose", 3),
        "silhouettes agree": _figure("silhouette_agreement", 3),
        "RMS between seeds": _figure("rms_between_seeds", 3),
        "Frechet between seeds": _figure("frechet_between_seeds", 2),
        "seconds": _figure("seconds", 1),
    }
    if comparison.settings.prior_figures:
        columns["fronts"] = _figure("fronts", 2)
        columns["views agree"] = _figure("view_agreement", 2)
        columns["view margin"] = _figure("view_margin", 2)
        columns["prompt fit"] = _figure("prompt_fit", 4)
    if any(entry.failed for entry in comparison.entries):
        columns["failed"] = lambda entry: str(entry.failed)
    return columns


def _legend(comparison: Comparison) -> str:
    settings = comparison.settings
    first, prompts, seeds = shown(settings.methods[0]), len(settings.all_prompts), len(settings.seeds)
    lines = [
        f"Prompts: {prompts}, seeds: {seeds}.",
        "In brackets: 95 % intervals, of means by bootstrap over prompts, then seeds, of shares by Wilson's method.",
        *([] if settings.finish == "none" else [_about_finish(shown(settings.finish))]),
        *_about_truth(comparison, first),
        "High frequency: share of the differences in luminance that is as fine as pixels. Loose: share of the opacity",
        "outside of the largest part. Silhouettes agree: IoU of neighbouring views 15 degrees apart, mean.",
        "Between seeds: RMS difference of held-out renders over grey, mean over pairs;",
        "Frechet distance of 11 features of colour and gradients (gsdistill/evaluation/diversity.py).",
        *([_REFERENCE] if comparison.reference else []),
        f"Seconds: of the steps alone, {' and '.join(map(str, comparison.fact('threads')))} thread(s) of "
        f"{' and '.join(comparison.fact('device'))}.",
    ]
    if settings.prior_figures:
        lines.append(
            "What the prior sees from all around: fronts, of which there should be one; the share of the views that "
            "agree with their cameras; the margin by which the second best direction fits worse (where it is near 0, "
            "the first two mean nothing); and the prompt's denoising error minus that without a prompt, below 0 where "
            "the prompt fits."
        )
    if comparison.true_saturation is not None and any(entry.failed for entry in comparison.entries):
        lines.append("A failed run counts as IoU 0, nothing right, colour error 1, PSNR 0 and Chamfer 2.")
    if comparison.settled < comparison.planned:
        lines.append(f"Unfinished: {comparison.settled} of {comparison.planned} runs are done.")
    return " ".join(lines)


def _about_finish(name: str) -> str:
    return f"Steps after a + are those of the finish {name}, which equal steps and equal evaluations do not count."


def _about_truth(comparison: Comparison, first: str) -> list[str]:
    """What the figures against the truth mean, or why they are missing."""
    if comparison.true_saturation is None:
        return ["The truth of these prompts is not known, so figures that need it are empty (-)."]
    return [
        "Unseen IoU: from below and above, where by default no run has cameras. PSNR: whole pictures over white, dB.",
        "Surface Chamfer: of the visible surface, from all cameras (gsdistill/evaluation).",
        f"IoU over {first}: mean difference to {first} with the same prompt and seed.",
        f"Saturation: HSV, mean inside the silhouettes; that of the truth is {comparison.true_saturation:.3f}.",
    ]


def _figure(name: str, digits: int) -> Cell:
    """Cells of a mean and its interval."""

    def cell(entry: Entry) -> str:
        interval = entry.figures[name]
        if interval is None:
            return "-"
        return f"{interval.mean:.{digits}f} ({interval.low:.{digits}f}..{interval.high:.{digits}f})"

    return cell


def _share(name: str) -> Cell:
    """Cells of a number of runs and the interval of their share in percent."""

    def cell(entry: Entry) -> str:
        interval = entry.figures[name]
        if interval is None:
            return "-"
        right = sum(row[name] for row in entry.rows)
        return f"{right} of {len(entry.rows)} ({100 * interval.low:.0f}..{100 * interval.high:.0f} %)"

    return cell


def _mean(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.mean:.0f}"
