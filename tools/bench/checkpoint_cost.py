"""What a checkpoint costs: seconds to write and to read, and bytes, by the number of Gaussians.

    python tools/bench/checkpoint_cost.py [--counts 1000 100000] [--degrees 0 3] [--times 5] [--folder FOLDER]

Medians of a state that has made a step, method SDS, on the disk of the folder. A run writes one every 30 seconds at
most, and never before fifty times as long has passed as the last one took: 2 % of its time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from gsdistill.core.structs import Gaussians
from gsdistill.distillation.sds import SDS
from gsdistill.prior.analytic import AnalyticPrior, Mixture
from gsdistill.representation.gaussians import GaussianScene, SceneSettings
from gsdistill.training import checkpoint
from gsdistill.training.backgrounds.grey import Grey
from gsdistill.training.distiller import Distiller
from gsdistill.training.views import ViewSettings


def state(count: int, degree: int) -> Distiller:
    """A run of ``count`` Gaussians after one step."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"means": (3,), "quats": (4,), "scales": (3,), "opacities": (), "sh": ((degree + 1) ** 2, 3)}
    scene = Gaussians(**{name: torch.randn(count, *shape, generator=generator) for name, shape in shapes.items()})
    world = Mixture(torch.ones(1), torch.zeros(1, 3), torch.ones(1))
    prior = AnalyticPrior(world, world, (3, 1, 1))
    splat = GaussianScene(scene, SceneSettings(), 1, torch.device("cpu"))
    for value in splat.params.values():
        value.grad = torch.randn_like(value)
    splat.update(0.0)
    return Distiller(splat, prior, SDS(), prior.encode_text("", ""), ViewSettings(1, 16, Grey()), 1, generator)


def seconds(act: Callable[[], Any], times: int) -> float:
    """The median of some calls after one that is not counted."""
    found = []
    for _ in range(times + 1):
        began = time.perf_counter()
        act()
        found.append(time.perf_counter() - began)
    return median(found[1:])


def main() -> None:
    """Print a row for each number of Gaussians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--degrees", type=int, nargs="+", default=[0, 3])
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path())
    flags = parser.parse_args()
    print("| Gaussians | SH | MB | write | read | a run's least time between two |\n|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(dir=flags.folder) as name:
        folder = Path(name)
        for degree in flags.degrees:
            for count in flags.counts:
                run = state(count, degree)
                path = checkpoint.save(run, folder, {})
                write = seconds(lambda run=run: checkpoint.save(run, folder, {}), flags.times)
                read = seconds(lambda path=path: checkpoint.read(path), flags.times)
                size, least = path.stat().st_size / 1e6, max(30.0, 50 * write)
                row = f"| {count:,} | {degree} | {size:.2f} | {write:.3f} s | {read:.3f} s | {least:.0f} s |"
                print(row, flush=True)


if __name__ == "__main__":
    main()
