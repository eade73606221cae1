"""Draws where the cameras of configs stand: a row for each stage of each, of which 2,000 views are drawn.

    python tools/readme/views.py
    python tools/readme/views.py --configs sds-mvdream mine.yaml --output views.png

Left: azimuth and elevation of the position seen from the origin, which jitter moves too. Right: distance from the
origin and field of view. The colour is the progress of the stage, which matters where ranges are schedules.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsdistill.cli.flags import settings_of
from gsdistill.prior.loading import group_of
from gsdistill.run.config import read_config, resolve
from gsdistill.scene.cameras.base import CameraLaw
from gsdistill.training.views import check_groups

DRAWN = 2_000  # views of a stage
LABELS = (("azimuth in degrees", "elevation in degrees"), ("distance in world units", "field of view in degrees"))


@dataclass(frozen=True)
class Settings:
    """What is drawn, and where to."""

    # YAML files, folders of runs, or names of `gsdistill list configs`
    configs: tuple[str, ...] = ("shapes-sds", "sds-mvdream")
    output: Path = Path("assets/readme/views.png")


def laws(config: str) -> dict[str, tuple[CameraLaw, int]]:
    """The law and the number of views of each stage of a config, by a title."""
    run = resolve({"prompt": "x", **read_config(config)})
    found = {}
    for number, part in enumerate(run.parts, 1):
        group = check_groups(part.views, part.cameras, run.prior, group_of(run.prior))
        title = f"{config}, stage {number}" if len(run.parts) > 1 else config
        found[title] = replace(part.cameras, group=group), part.views
    return found


def drawn(law: CameraLaw, views: int) -> np.ndarray[Any, Any]:
    """Azimuth, elevation, distance, field of view and progress of the views of a stage, [5, n]."""
    generator, steps = torch.Generator().manual_seed(0), -(-DRAWN // views)
    rows = []
    for step in range(steps):
        cameras = law.draw(views, 2, step / steps, generator)
        turns, shifts = cameras.viewmats[:, :3, :3], cameras.viewmats[:, :3, 3:]
        x, y, z = position = -(turns * shifts).sum(1).T
        distance = position.norm(dim=0)
        angles = torch.rad2deg(
            torch.stack([torch.atan2(y, x), torch.asin(z / distance), cameras.Ks[:, 0, 0].pow(-1).atan() * 2])
        )
        rows.append(torch.stack([angles[0] % 360, angles[1], distance, angles[2], torch.full_like(x, step / steps)]))
    return torch.cat(rows, 1).numpy()


def main() -> None:
    """Draw the figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    settings = settings_of(Settings, sys.argv[1:], "views.py")
    stages = {title: law for config in settings.configs for title, law in laws(config).items()}
    figure, axes = plt.subplots(len(stages), 2, figsize=(9, 2.8 * len(stages)), squeeze=False, layout="constrained")
    for row, (title, (law, views)) in zip(axes, stages.items(), strict=True):
        azimuth, elevation, distance, fov, progress = drawn(law, views)
        for axis, (x, y), labels in zip(row, ((azimuth, elevation), (distance, fov)), LABELS, strict=True):
            points = axis.scatter(x, y, c=progress, s=3, vmin=0, vmax=1, linewidths=0)
            axis.set(xlabel=labels[0], ylabel=labels[1])
        row[0].set(title=f"{title}: {views} views a step", xlim=(0, 360), ylim=(-90, 90))
        row[0].set(xticks=range(0, 361, 90), yticks=range(-90, 91, 30))
        row[1].set(xlim=(0, 1.1 * distance.max()), ylim=(0, 1.1 * fov.max()))
        figure.colorbar(points, ax=row[1], label="progress of the stage")
    figure.savefig(settings.output, dpi=100)


if __name__ == "__main__":
    main()
