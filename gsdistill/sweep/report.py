"""The files of a sweep beside its runs: results.json, table.md, figure.png and sheet.png."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from gsdistill.disk.write import write_text
from gsdistill.sweep.figure import draw_figure, draw_sheet
from gsdistill.sweep.results import compare
from gsdistill.sweep.settings import SweepSettings
from gsdistill.sweep.table import markdown, show

__all__ = ["report"]


def report(settings: SweepSettings, console: Console) -> None:
    """Compare the finished runs of a sweep, write the four files and print the table.

    Raises:
        OutputError: a file cannot be written.
        UserError: as :func:`gsdistill.sweep.results.compare`.
    """
    comparison, home = compare(settings), settings.output
    comparison.write()
    write_text(home / "table.md", markdown(comparison))
    draw_figure(comparison, home / "figure.png")
    draw_sheet(comparison, home / "sheet.png")
    show(comparison, console)
    names = ("results.json", "table.md", "figure.png", "sheet.png")
    console.print(Text("\n".join(str(home / name) for name in names)), soft_wrap=True)
