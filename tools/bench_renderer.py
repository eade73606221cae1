"""Time the renderers on this machine: forward and backward of a batch of views, per scene and backend.

    python tools/bench_renderer.py --n 5000 --size 128 --views 4 --threads 2 [--json times.json]

Every row runs in a process of its own, so that its peak memory is its own. The ratio is to the reference of the same
scene in the same run; scenes without one are too large for it. Times are medians, of one call for the reference,
which takes minutes; "first" is the first call, which compiles the kernels or loads them from disk.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from gsdistill.renderer.base import render
from gsdistill.scene.cameras import orbit
from gsdistill.structs import Gaussians


def ball(count: int, scale: float, stretch: float, degree: int = 0) -> Gaussians:
    """Gaussians of standard deviation ``scale`` e^(+-stretch) that fill the unit ball."""
    random = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=random), dim=-1)
    return Gaussians(
        means=direction * torch.rand(count, 1, generator=random) ** (1 / 3) * 0.8,
        quats=torch.randn(count, 4, generator=random),
        scales=math.log(scale) + stretch * torch.randn(count, 3, generator=random),
        opacities=torch.randn(count, generator=random) - 1,
        sh=torch.randn(count, (degree + 1) ** 2, 3, generator=random) * 0.3,
    )


def scene(name: str, count: int) -> Gaussians:
    """The scene called ``name``: ball (spacing-sized), needles (long and thin), 100k (whatever ``count`` says)."""
    if name == "ball":
        return ball(count, 0.8 * count ** (-1 / 3), 0.0)
    if name == "needles":
        return ball(count, 0.3 * count ** (-1 / 3), 1.5)
    return ball(100_000, 0.01, 0.4)


def measure(name: str, backend: str, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of forward and backward, and the peak memory of this process in MB."""
    torch.set_num_threads(options.threads)
    start = scene(name, options.n)
    leaves = {key: value.clone().requires_grad_() for key, value in vars(start).items()}
    cameras, backgrounds = orbit(options.views, options.size), torch.ones(options.views, 3)
    forward, backward = [], []
    for _ in range(1 if backend == "reference" else 1 + options.repeats):
        begin = time.perf_counter()
        result = render(Gaussians(**leaves), cameras, backgrounds, backend=backend)
        middle = time.perf_counter()
        (result.images.square().mean() + result.depths.mean()).backward()
        forward.append((middle - begin) * 1e3)
        backward.append((time.perf_counter() - middle) * 1e3)
    total = [f + b for f, b in zip(forward, backward, strict=True)]
    return {
        "forward_ms": statistics.median(forward[1:] or forward),
        "backward_ms": statistics.median(backward[1:] or backward),
        "total_ms": statistics.median(total[1:] or total),
        "first_ms": total[0],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20),
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for flag, default in (("n", 5000), ("size", 128), ("views", 4), ("threads", 2), ("repeats", 15)):
        parser.add_argument(f"--{flag}", type=int, default=default)
    parser.add_argument("--scenes", nargs="+", default=["ball", "needles", "100k"], choices=["ball", "needles", "100k"])
    parser.add_argument("--backends", nargs="+", default=["reference", "cpu"])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--row", nargs=2, metavar=("SCENE", "BACKEND"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Run every row in its own process and print the table."""
    options = arguments()
    if options.row:
        print(json.dumps(measure(options.row[0], options.row[1], options)))
        return
    print(f"{options.n} Gaussians, {options.views} views of {options.size} px, {options.threads} threads")
    print(
        f"{'scene':9} {'backend':10} {'forward':>9} {'backward':>9} {'total ms':>9} {'ratio':>7} {'first':>8} {'MB':>6}"
    )
    rows, slow = [], {}
    for name in options.scenes:
        for backend in options.backends:
            if (name, backend) == ("100k", "reference"):
                continue
            command = [sys.executable, __file__, *sys.argv[1:], "--row", name, backend]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row = {"scene": name, "backend": backend, **json.loads(done.stdout.splitlines()[-1])}
            rows.append(row)
            slow.setdefault(name, row["total_ms"] if backend == "reference" else math.nan)
            times = f"{row['forward_ms']:9.1f} {row['backward_ms']:9.1f} {row['total_ms']:9.1f}"
            ratio = f"{slow[name] / row['total_ms']:7.1f}"
            print(f"{name:9} {backend:10} {times} {ratio} {row['first_ms']:8.0f} {row['peak_mb']:6.0f}", flush=True)
    if options.json:
        settings = {key: getattr(options, key) for key in ("n", "size", "views", "threads")}
        options.json.write_text(json.dumps({"settings": settings, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
