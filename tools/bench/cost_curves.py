"""Draw what a step costs on this machine, by phase, against Gaussians, views and pixels.

    python tools/bench/cost_curves.py --threads 1 [--json FILE] [--figure FILE]

One of the three changes at a time, the others are those of the recipe: 1,000 Gaussians, 4 views, 64 pixels. The steps
are those of `gsdistill bench --method sds`, whose figures each point keeps. With ``--random-weights sd21-base`` the
network is the real one, where there is an accelerator for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from gsdistill.bench.figures import measure
from gsdistill.core.device import choose, prepare
from gsdistill.core.errors import UserError
from gsdistill.disk.write import write_json
from gsdistill.laboratory.plots import new_figure, save_figure
from gsdistill.prior.loading import load_prior
from gsdistill.prior.random_weights import architecture, random_prior
from gsdistill.run.config import resolve
from gsdistill.settings.config import merge

# What changes: its name in a measurement's "run", what it is called, and its values.
CURVES = {
    "gaussians": ("Gaussians", (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)),
    "views": ("views", (1, 2, 4, 8, 16)),
    "resolution": ("pixels along each side", (32, 64, 128, 256, 512, 1024)),
}
BASE = {"gaussians": 1_000, "views": 4, "resolution": 64}

# A line of the figure: phases that are added up, and a colour (Okabe and Ito's palette).
LINES = {
    "network": (("network",), "#333333"),
    "render": (("render",), "#0072B2"),
    "render backward": (("render backward",), "#D55E00"),
    "encode, both ways": (("encode", "encode backward"), "#009E73"),
    "optimise and the rest": (("optimise", "densify", "rest"), "#CC79A7"),
}


def settings(place: dict[str, int], prior: str) -> dict[str, Any]:
    """The settings of a run with so many Gaussians, views and pixels."""
    own = {"init": {"name": "ball", "count": place["gaussians"]}, **{k: place[k] for k in ("views", "resolution")}}
    return merge({"prompt": "a red torus", "prior": prior, "method": "sds"}, own)


def points(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The measurement of each point of each curve; they share the prior."""
    device = choose("auto")
    prepare(device)
    name = architecture(options.random_weights) if options.random_weights else "shapes"
    prior = None
    for curve, (_, values) in CURVES.items():
        for value in values:
            config = resolve(settings({**BASE, curve: value}, name))
            if prior is None:
                prior = (random_prior if options.random_weights else load_prior)(name, device, config.model)
            yield {
                "curve": curve,
                **measure(config, prior, device, options.steps, 2, options.random_weights is not None),
            }


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Three panels of milliseconds, on logarithmic scales."""
    figure = new_figure(9.0, 3.1)
    for axes, (curve, (label, values)) in zip(figure.subplots(1, 3, sharey=True), CURVES.items(), strict=True):
        phases = [point["phases"] for point in found if point["curve"] == curve]
        for name, (parts, colour) in LINES.items():
            times = [sum(phase[part]["median_ms"] for part in parts) for phase in phases]
            axes.plot(values, times, "o-", color=colour, markersize=3.5, linewidth=1.4, label=name)
        axes.set(xscale="log", yscale="log", xlabel=label)
        ticks = [value for value in values if curve != "gaussians" or value in (1_000, 10_000, 100_000, 1_000_000)]
        axes.set_xticks(ticks, [f"{value:,}" for value in ticks])
        axes.minorticks_off()
        axes.grid(color="#e5e5e5", linewidth=0.6)
        others = [f"{BASE[other]:,} {CURVES[other][0].split()[0]}" for other in CURVES if other != curve]
        axes.set_title(", ".join(others), fontsize=8, color="#666666")
    figure.axes[0].set_ylabel("ms per step (median)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(LINES))
    save_figure(figure, path)


def main() -> None:
    """Measure, print each point, and write both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    parser.add_argument("--steps", type=int, default=15, help="timed at each point")
    parser.add_argument("--random-weights", help="a published network without its weights, instead of the shapes prior")
    parser.add_argument("--json", type=Path, default=Path("tools/readme/results/cost-curves.json"))
    parser.add_argument("--figure", type=Path, default=Path("assets/readme/cost-curves.png"))
    options = parser.parse_args()
    if options.threads < 1 or options.steps < 1:
        parser.error("--threads and --steps are 1 at least")
    torch.set_num_threads(options.threads)
    found = []
    try:
        for point in points(options):
            found.append(point)
            times = ", ".join(f"{name} {phase['median_ms']:.2f}" for name, phase in point["phases"].items())
            print(f"{point['curve']} {point['run'][point['curve']]}: {times} ms", flush=True)
    except UserError as error:
        parser.error(str(error))
    kept = ("curve", "run", "phases", "step", "steps_per_second")
    rows = [{name: point[name] for name in kept} for point in found]
    write_json(options.json, {"environment": found[0]["environment"], "points": rows})
    draw(found, options.figure)


if __name__ == "__main__":
    main()
