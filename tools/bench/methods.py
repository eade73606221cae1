"""What a step of each method costs beside one of SDS: evaluations of the network, and seconds of the whole step.

    python tools/bench/methods.py --threads 1 [--methods sds fsd cfd] [--rounds 3] [--json FILE]

All methods have their own settings, the shapes prior, 4 views of 64 pixels and 1,000 Gaussians. A method is timed
right after SDS in every round, so that a busy machine slows both; its figure is the median ratio of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch

from gsdistill.bench.timing import time_steps
from gsdistill.core.device import choose, prepare
from gsdistill.disk.write import write_json
from gsdistill.prior.base import Prior
from gsdistill.prior.loading import load_prior
from gsdistill.run.config import resolve
from gsdistill.settings.registry import names

WORDS = {"sds-bridge": {"source": ""}}  # settings that a closed world needs: it does not know the words
BASE = {
    "prompt": "a red torus", "prior": "shapes", "views": 4, "resolution": 64, "init": {"name": "ball", "count": 1000},
    "recipe": False,
}  # fmt: skip


def timed(method: str, prior: Prior, device: torch.device, steps: int) -> tuple[float, float]:
    """Seconds a step, and network evaluations of a view in a step, over a whole run's times."""
    settings = {**BASE, "method": {"name": method, **WORDS.get(method, {})}}
    timing = time_steps(resolve(settings), prior, device, steps, 2)
    return statistics.mean(timing.steps), timing.evaluations / steps / timing.views.count


def main() -> None:
    """Measure, print a row for each method, and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    parser.add_argument("--methods", nargs="+", default=names("gsdistill.distillation"))
    parser.add_argument("--steps", type=int, default=24, help="timed in each round, spread over a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose("auto")
    prepare(device)
    prior, rows = load_prior("shapes", device), {}
    for method in options.methods:
        rounds = [[timed(one, prior, device, options.steps) for one in ("sds", method)] for _ in range(options.rounds)]
        ratio = statistics.median(own[0] / sds[0] for sds, own in rounds)
        rows[method] = {
            "evaluations": round(rounds[0][1][1], 2),
            "milliseconds": round(1000 * statistics.median(own[0] for _, own in rounds), 1),
            "over_sds": round(ratio, 2),
        }
        print(f"{method:12} {rows[method]}", flush=True)
    if options.json:
        write_json(options.json, rows)


if __name__ == "__main__":
    main()
