"""Pictures of the laboratory: maps of point worlds with the ways through them, and sheets of images.

matplotlib is imported where a figure is made, and pyplot, which asks for a display, never.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.disk.write import atomic_path
from gsdistill.laboratory.worlds.base import Stage

__all__ = ["COLOURS", "density", "map_key", "new_figure", "save_figure", "sheet", "way"]

# One colour per estimator or method, told apart in print and by the colour-blind (Okabe and Ito's palette).
COLOURS = {
    "mode_seeking": "#0072B2", "mode_disengaging": "#D55E00", "ssd": "#009E73", "sds": "#0072B2", "fsd": "#D55E00",
    "dark": "#333333", "light": "#999999",
}  # fmt: skip


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of a size in inches, in the laboratory's plain style."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rc("font", size=9)
    matplotlib.rc("axes", titlesize=10)
    matplotlib.rc("axes.spines", top=False, right=False)
    matplotlib.rc("legend", frameon=False, fontsize=8)
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, in one piece; equal figures give equal bytes. Raises OutputError."""
    with atomic_path(path) as draft:
        figure.savefig(draft, format="png", dpi=110, metadata={"Software": None})


def density(axes: Any, stage: Stage, xs: tuple[float, float], ys: tuple[float, float]) -> None:
    """Contours of p(x | y), filled, and of p(x), dotted, at fixed shares of the density's maximum."""
    grid = torch.meshgrid(torch.linspace(*ys, 240), torch.linspace(*xs, 240), indexing="ij")
    y, x = (axis.double() for axis in grid)
    place = torch.stack([x.flatten(), y.flatten()], dim=1)
    falls = []
    for mixture in (stage.conditional, stage.unconditional):
        log = mixture.log_density(place).view_as(x)
        falls.append((log - log.max()).numpy())
    axes.contourf(x, y, falls[0], levels=[-12.5, -8.0, -4.5, -2.0, -0.5, 0.0], cmap="Greys", alpha=0.55)
    axes.contour(x, y, falls[1], levels=[-8.0, -4.5, -2.0, -0.5], colors="#8a7a3a", linewidths=0.7, linestyles="dotted")
    axes.set_aspect("equal")
    axes.set(xlim=xs, ylim=ys, xlabel="x", ylabel="y")


def map_key(ends: bool = True) -> list[Any]:
    """Entries of a legend for a map: its densities and, with ``ends``, the ring and the disc of a way."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[Any] = [
        Patch(color="#8c8c8c", label="p(x | y), the prompt's"),
        Line2D([], [], color="#8a7a3a", linewidth=1.0, linestyle="dotted", label="p(x), of any prompt"),
    ]
    dot = {"linestyle": "", "marker": "o", "markersize": 6, "markeredgecolor": "black"}
    marks = {"start": "white", "end": "black"} if ends else {}
    return entries + [Line2D([], [], **dot, color=colour, label=label) for label, colour in marks.items()]


def way(axes: Any, points: Float[Tensor, "S 2"], colour: str, label: str | None = None, alpha: float = 1.0) -> None:
    """A trajectory through a map: a ring at its start, a disc at its end."""
    x, y = points.double().T.numpy()
    axes.plot(x, y, color=colour, linewidth=1.2, alpha=alpha, label=label, zorder=3)
    axes.plot(x[0], y[0], "o", markersize=7, markerfacecolor="white", markeredgecolor="black", zorder=4)
    axes.plot(x[-1], y[-1], "o", markersize=7, color=colour, markeredgecolor="black", markeredgewidth=0.6, zorder=5)


def sheet(
    axes: Any, images: Float[Tensor, "N H W 3"], columns: int, rows: Sequence[str] = (), across: str = ""
) -> None:
    """Images in 0..1 as a grid on one pair of axes, row by row; ``rows`` names each row, ``across`` the columns."""
    count, height, width, _ = images.shape
    lines = -(-count // columns)
    canvas = torch.ones(lines * columns, height + 2, width + 2, 3, dtype=images.dtype)
    canvas[:count, 1:-1, 1:-1] = images.clamp(0.0, 1.0)
    grid = canvas.view(lines, columns, height + 2, width + 2, 3).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    axes.imshow(grid.float().numpy(), interpolation="nearest")
    numbered = range(columns if across else 0)
    axes.set_xticks([(width + 2) * (column + 0.5) for column in numbered], [str(column + 1) for column in numbered])
    axes.set_yticks([(height + 2) * (row + 0.5) for row in range(len(rows))], list(rows))
    axes.set_xlabel(across)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
