"""Pictures of the laboratory: maps of point worlds with trajectories, and sheets of images.

matplotlib is imported only where a figure is made, and pyplot, which needs a display, never.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.disk.write import atomic_path
from gsdistill.laboratory.worlds.base import Densities

__all__ = ["COLOURS", "draw_densities", "draw_sheet", "draw_way", "map_key", "new_figure", "save_figure"]

# One colour per estimator or method; print and colour-blind eyes keep them apart (Okabe and Ito's palette).
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


def draw_densities(axes: Any, densities: Densities, xs: tuple[float, float], ys: tuple[float, float]) -> None:
    """Draw contours of p(x | y), filled, and of p(x), dotted, at fixed shares of each density's maximum."""
    grid = torch.meshgrid(torch.linspace(*ys, 240), torch.linspace(*xs, 240), indexing="ij")
    y, x = (axis.double() for axis in grid)
    places = torch.stack([x.flatten(), y.flatten()], dim=1)
    logs = [p.log_density(places).view_as(x) for p in (densities.conditional, densities.unconditional)]
    with_prompt, without = ((log - log.max()).numpy() for log in logs)
    axes.contourf(x, y, with_prompt, levels=[-12.5, -8.0, -4.5, -2.0, -0.5, 0.0], cmap="Greys", alpha=0.55)
    levels = [-8.0, -4.5, -2.0, -0.5]
    axes.contour(x, y, without, levels=levels, colors="#8a7a3a", linewidths=0.7, linestyles="dotted")
    axes.set_aspect("equal")
    axes.set(xlim=xs, ylim=ys, xlabel="x", ylabel="y")


def map_key(ends: bool = True) -> list[Any]:
    """Entries of a map's legend: its densities and, with ``ends``, the ring and the disc of a trajectory."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[Any] = [
        Patch(color="#8c8c8c", label="p(x | y), the prompt's"),
        Line2D([], [], color="#8a7a3a", linewidth=1.0, linestyle="dotted", label="p(x), of any prompt"),
    ]
    dot = {"linestyle": "", "marker": "o", "markersize": 6, "markeredgecolor": "black"}
    marks = {"start": "white", "end": "black"} if ends else {}
    return entries + [Line2D([], [], **dot, color=colour, label=label) for label, colour in marks.items()]


def draw_way(
    axes: Any, points: Float[Tensor, "S 2"], colour: str, label: str | None = None, alpha: float = 1.0
) -> None:
    """Draw a trajectory into a map, with a ring at its start and a disc at its end."""
    x, y = points.double().T.numpy()
    axes.plot(x, y, color=colour, linewidth=1.2, alpha=alpha, label=label, zorder=3)
    axes.plot(x[0], y[0], "o", markersize=7, markerfacecolor="white", markeredgecolor="black", zorder=4)
    axes.plot(x[-1], y[-1], "o", markersize=7, color=colour, markeredgecolor="black", markeredgewidth=0.6, zorder=5)


def draw_sheet(
    axes: Any, images: Float[Tensor, "N H W 3"], columns: int, rows: Sequence[str] = (), across: str = ""
) -> None:
    """Draw images in 0..1 as a grid, row by row; ``rows`` has the label of each row, ``across`` that of the columns."""
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
