"""Judge the shapes world's Point-E on the true surfaces: figures.json and samples.png next to its weights.

    python tools/train/check_shapes_points.py

Twenty prompts: the seven shape-colour pairs that were never shown, the seven other solids, six stacks. Chamfer is the
mean of cloud to truth (mean |distance| of the points to the surface) and truth to cloud (mean distance of 4,096 points
of the surface to the nearest point of the cloud), world units; the object fills the ball of radius 0.95. As many true
points as the cloud has get the Chamfer given as ``floor``.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from shapes_data import HELD_OUT

from gsdistill.cli.flags import settings_of
from gsdistill.core.structs import PointCloud
from gsdistill.disk.write import atomic_path, write_json
from gsdistill.point_e.model import load_point_e
from gsdistill.worlds.base import Thing
from gsdistill.worlds.shapes.captions import BOTTOMS, COLORS, SHAPES, TOPS, object_name
from gsdistill.worlds.shapes.solids import distances
from gsdistill.worlds.shapes.surface import nearest_parts, sample_surface
from gsdistill.worlds.shapes.world import build, every_layout

TRUE_POINTS = 4096


@dataclass(frozen=True)
class Settings:
    """What to check."""

    # folder or name of the Point-E
    model: str = "assets/shapes-points"
    # where the figures and the sheet go; the model's folder if not given
    output: Path | None = None
    # guidance scale and steps, the model's if not given
    guidance_scale: float | None = None
    steps: int | None = None
    # how many of the twenty prompts
    prompts: int = 20
    seed: int = 0


def objects() -> list[tuple[Thing, ...]]:
    """The twenty objects, the unseen pairs first."""
    rng = random.Random(0)
    unseen = [Thing(color, shape) for color, shape in sorted(HELD_OUT)]
    rest = [shape for shape in SHAPES if shape not in {thing.shape for thing in unseen}]
    singles = [*unseen, *(Thing(rng.choice(list(COLORS)), shape) for shape in rest)]
    stacks: list[tuple[Thing, ...]] = [
        (Thing("purple", "cube"), Thing("white", "table")),
        (Thing("yellow", "sphere"), Thing("cyan", "torus")),
    ]
    while len(stacks) < 6:
        pair = zip(rng.sample(list(COLORS), 2), (rng.choice(TOPS), rng.choice(BOTTOMS)), strict=True)
        stacks.append(tuple(Thing(color, shape) for color, shape in pair))
    return [*((thing,) for thing in singles), *stacks]


def truth(parts: NDArray[np.float64], count: int, seed: int) -> NDArray[np.float64]:
    """``count`` points of the true surface."""
    return sample_surface(parts, 1 << 14, np.random.default_rng(seed))[:count]


def chamfer(points: NDArray[np.float64], parts: NDArray[np.float64]) -> tuple[float, float]:
    """Cloud to truth, and truth to cloud, in world units."""
    true = torch.from_numpy(truth(parts, TRUE_POINTS, 0)).float()
    back = torch.cdist(true, torch.from_numpy(points).float()).amin(1).mean()
    return float(np.abs(distances(parts, points)).mean()), float(back)


def named_colors(cloud: PointCloud, parts: NDArray[np.float64]) -> tuple[str, ...]:
    """The named colour nearest to the median of the points of each part; '' where a part has none."""
    of = nearest_parts(parts, cloud.points.double().numpy())
    palette = np.array(list(COLORS.values()))
    found = []
    for part in range(len(parts)):
        mine = cloud.colors.numpy()[of == part]
        off = np.square(palette - np.median(mine, axis=0)).sum(1) if len(mine) else None
        found.append("" if off is None else list(COLORS)[int(off.argmin())])
    return tuple(found)


def nearest_layout(points: NDArray[np.float64]) -> tuple[str, ...]:
    """The object of the world, colours aside, with the least Chamfer."""
    return min(every_layout().items(), key=lambda item: sum(chamfer(points, item[1])))[0]


def judge(cloud: PointCloud, things: tuple[Thing, ...]) -> dict[str, object]:
    """The figures of one cloud."""
    world = build(things)
    points = cloud.points.double().numpy()
    forth, back = chamfer(points, world.parts)
    floor = chamfer(truth(world.parts, len(points), 1), world.parts)
    paint = world.colors[nearest_parts(world.parts, points)]
    return {
        "prompt": object_name(things),
        "unseen": any((thing.color, thing.shape) in HELD_OUT for thing in things),
        "chamfer": round((forth + back) / 2, 4),
        "cloud_to_truth": round(forth, 4),
        "truth_to_cloud": round(back, 4),
        "floor": round(sum(floor) / 2, 4),
        "far_points": round(float((np.abs(distances(world.parts, points)) > 0.1).mean()), 4),
        "shape_right": nearest_layout(points) == tuple(thing.shape for thing in things),
        "color_right": named_colors(cloud, world.parts) == tuple(thing.color for thing in things),
        "color_error": round(float(np.abs(cloud.colors.numpy() - paint).mean()), 4),
    }


def summary(rows: list[dict]) -> dict[str, float | int]:
    """Means of the rows."""
    keys = (
        "chamfer",
        "cloud_to_truth",
        "truth_to_cloud",
        "floor",
        "far_points",
        "shape_right",
        "color_right",
        "color_error",
    )
    return {"prompts": len(rows), **{key: round(float(np.mean([row[key] for row in rows])), 4) for key in keys}}


def draw(clouds: list[PointCloud], chosen: list[tuple[Thing, ...]], path: Path) -> None:
    """Each cloud beside as many true points, seen from azimuth 35, elevation 25."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 4
    rows = -(-len(clouds) // columns)
    figure = Figure(figsize=(columns * 3.0, rows * 1.72), dpi=80)
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(rows, 2 * columns, squeeze=False).ravel()
    for panel in panels:
        panel.axis("off")
    a, e = np.radians(35.0), np.radians(25.0)
    right, ahead = (
        np.array([-np.sin(a), np.cos(a), 0.0]),
        np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)]),
    )
    for i, (cloud, things) in enumerate(zip(clouds, chosen, strict=True)):
        world = build(things)
        true = truth(world.parts, len(cloud), 1)
        sides = ((cloud.points.numpy(), cloud.colors.numpy(), object_name(things)),
                 (true, world.colors[nearest_parts(world.parts, true)], "truth"))  # fmt: skip
        for panel, (points, colors, title) in zip(panels[2 * i : 2 * i + 2], sides, strict=True):
            depth = points @ ahead
            order = depth.argsort()
            shade = (0.75 + 0.25 * (depth + 1.0) / 2.0).clip(0.5, 1.0)[:, None]
            panel.scatter(points @ right, points @ np.cross(ahead, right), c="#9a9a9a", s=0)
            panel.scatter(
                (points @ right)[order],
                (points @ np.cross(ahead, right))[order],
                c=(colors * shade)[order],
                s=2.5,
                linewidths=0,
            )
            panel.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
            panel.add_patch(_backdrop())
            panel.set_title(title, fontsize=5.5, pad=2)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.005, top=0.97, wspace=0.03, hspace=0.14)
    canvas.draw()
    sheet = Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3].copy())
    with atomic_path(path) as draft:
        sheet.save(draft, format="png", optimize=True)


def _backdrop():  # noqa: ANN202
    from matplotlib.patches import Rectangle

    return Rectangle((-1, -1), 2, 2, facecolor="#a8a8a8", zorder=0)


def main(settings: Settings) -> None:
    """Sample, judge, write."""
    model = load_point_e(settings.model)
    output = settings.output or Path(settings.model)
    output.mkdir(parents=True, exist_ok=True)
    chosen = objects()[:: -(-20 // settings.prompts)]
    clouds, rows, seconds = [], [], []
    for i, things in enumerate(chosen):
        began = time.perf_counter()
        generator = torch.Generator().manual_seed(settings.seed + i)
        clouds.append(model.sample(object_name(things), generator, settings.guidance_scale, settings.steps))
        seconds.append(time.perf_counter() - began)
        rows.append(judge(clouds[-1], things))
        print(json.dumps(rows[-1]), flush=True)
    groups = {
        "all": rows,
        "unseen pairs": [row for row in rows if row["unseen"]],
        "single solids": [row for row, things in zip(rows, chosen, strict=True) if len(things) == 1],
        "stacks": [row for row, things in zip(rows, chosen, strict=True) if len(things) == 2],
    }
    figures = {name: summary(members) for name, members in groups.items() if members}
    timing = {"seconds_per_cloud": round(float(np.median(seconds)), 2), "threads": torch.get_num_threads()}
    report = {"points": len(clouds[0]), **timing, "groups": figures, "clouds": rows}
    write_json(output / "figures.json", report)
    draw(clouds, chosen, output / "samples.png")
    print(json.dumps({**timing, **figures}, indent=1))


if __name__ == "__main__":
    main(settings_of(Settings, sys.argv[1:], "check_shapes_points.py"))
