"""Time the renderers on this machine: forward and backward of a batch of views, per scene, backend and threads.

    python tools/bench/renderer.py --n 5000 --size 128 --views 4 --threads 1 2 [--floor] [--json times.json]
    python tools/bench/renderer.py --memory [--json memory.json]

Scenes: ``sphere`` and ``ball`` (what ``--init sphere`` and ``--init ball`` of generate start from, --n Gaussians),
``full`` (--n Gaussians as large as their spacing, opacities and colours at random), ``needles`` (long and thin),
``100k`` (100,000 small ones) and ``chair`` (a trained splat, or that of --ply). Every row runs in a process of its own,
so that its peak memory is its own: "MB" is the peak above what the process held after a render of one Gaussian. The
ratio is to the reference of the same scene in the same run. Times are medians after a first call, which loads the
kernels or compiles them ("first"; of the reference the first call alone, it takes minutes); the gradients that
backward starts from are given, so that nothing but the renderer is timed. --floor adds the least time of
``renderer_floor`` and the ratio to it. --memory: one view, 1,000 to 1,000,000 Gaussians and 64 to 1,024 pixels.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gsdistill.bench.figures import environment
from gsdistill.core.device import choose, peak_memory
from gsdistill.core.structs import Gaussians
from gsdistill.disk.write import write_json
from gsdistill.renderer.base import render
from gsdistill.scene.viewpoints import orbit

SCENES = ("sphere", "ball", "full", "needles", "100k", "chair")
BACKENDS = ("reference", "cpu", "cuda")
CHAIR = Path(__file__).parents[2] / "tests" / "data" / "chair.ply"
LARGEST = 20_000  # Gaussians that the reference is asked to render
COUNTS, SIZES = (1000, 10_000, 100_000, 1_000_000), (64, 128, 256, 512, 1024)  # of the memory table


def cloud(count: int, scale: float, stretch: float) -> Gaussians:
    """Gaussians of standard deviation ``scale`` e^(+-stretch) that fill a ball, in random colours and opacities."""
    random = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=random), dim=-1)
    return Gaussians(
        means=direction * torch.rand(count, 1, generator=random) ** (1 / 3) * 0.8,
        quats=torch.randn(count, 4, generator=random),
        scales=math.log(scale) + stretch * torch.randn(count, 3, generator=random),
        opacities=torch.randn(count, generator=random) - 1,
        sh=torch.randn(count, 1, 3, generator=random) * 0.3,
    )


def scene(name: str, count: int, ply: Path) -> Gaussians:
    """The scene called ``name``, of ``count`` Gaussians where it has no number of its own."""
    random = torch.Generator().manual_seed(0)
    if name == "sphere":
        from gsdistill.scene.init.sphere import Sphere

        return Sphere(count=count).create("", random)
    if name == "ball":
        from gsdistill.scene.init.ball import Ball

        return Ball(count=count).create("", random)
    if name == "chair":
        from gsdistill.scene.init.ply import Ply

        return Ply(path=ply).create("", random)
    if name == "100k":
        return cloud(100_000, 0.01, 0.4)
    if name == "needles":
        return cloud(count, 0.3 * count ** (-1 / 3), 1.5)
    return cloud(count, 0.8 * count ** (-1 / 3), 0.0)


def step(gaussians: Gaussians, options: argparse.Namespace, backend: str) -> tuple[float, float]:
    """Milliseconds of one forward and one backward pass."""
    device = gaussians.means.device.type
    leaves = gaussians.each(lambda value: value.clone().requires_grad_())
    cameras, backgrounds = orbit(options.views, options.size), torch.ones(options.views, 3, device=device)
    cameras = replace(cameras, viewmats=cameras.viewmats.to(device), Ks=cameras.Ks.to(device))
    wait = torch.cuda.synchronize if device != "cpu" else (lambda: None)
    given = [torch.full((options.views, options.size, options.size, part), 1e-4, device=device) for part in (3, 1)]
    wait()
    begin = time.perf_counter()
    result = render(leaves, cameras, backgrounds, backend=backend)
    wait()
    middle = time.perf_counter()
    torch.autograd.backward([result.images, result.depths], given)
    wait()
    return (middle - begin) * 1e3, (time.perf_counter() - middle) * 1e3


def measure(name: str, backend: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row: medians in milliseconds and the peak memory in MB."""
    torch.set_num_threads(options.threads[0])
    device = "cuda" if backend == "cuda" else "cpu"
    whole = scene(name, options.n, options.ply)
    whole = whole.each(lambda value: value.to(device))
    first = sum(step(whole.each(lambda value: value[:1]), options, backend))
    held = peak_memory(torch.device(device))
    rounds = 1 if backend == "reference" else 1 + options.repeats
    times = [step(whole, options, backend) for _ in range(rounds)]
    kept = times[1:] or times
    row = {
        "gaussians": len(whole),
        "forward_ms": statistics.median(forward for forward, _ in kept),
        "backward_ms": statistics.median(backward for _, backward in kept),
        "total_ms": statistics.median(map(sum, kept)),
        "least_ms": min(map(sum, kept)),
        "first_ms": first,
        "peak_mb": (peak_memory(torch.device(device)) - held) / 2**20,
    }
    if options.floor and backend == "cpu":
        row |= floor(whole, options)
    return row


def floor(gaussians: Gaussians, options: argparse.Namespace) -> dict[str, Any]:
    """The counts and the floor of a row, of as many threads as it has."""
    import renderer_floor

    found: dict[str, Any] = renderer_floor.counts(gaussians, orbit(options.views, options.size))
    rates = renderer_floor.rates()
    return found | {"floor_ms": found["contributing"] * sum(rates.values()) * 1e-6 / options.threads[0]}


def refusal(name: str, backend: str, options: argparse.Namespace) -> str:
    """Why a row cannot be measured here, or nothing."""
    if backend == "cuda" and not torch.cuda.is_available():
        return "no NVIDIA GPU that torch can use"
    if backend == "reference" and (name == "100k" or (name != "chair" and options.n > LARGEST)):
        return f"more than {LARGEST:,} Gaussians take the reference too long"
    if name == "chair" and not options.ply.is_file():
        return f"{options.ply} is not there"
    return ""


def run(name: str, backend: str, options: argparse.Namespace, threads: int, n: int, size: int) -> dict[str, Any]:
    """One row, measured in a process of its own."""
    flags = {"n": n, "size": size, "views": options.views, "repeats": options.repeats, "threads": threads}
    command = [sys.executable, __file__, "--ply", str(options.ply), "--row", name, backend]
    command += [text for flag, value in flags.items() for text in (f"--{flag}", str(value))]
    done = subprocess.run(command + ["--floor"] * options.floor, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        sys.exit(f"{name} {backend}: {lines[-1]}")
    settings = {"scene": name, "backend": backend, "threads": threads, "size": size, "views": options.views}
    return settings | json.loads(done.stdout.splitlines()[-1])


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for flag, default in (("n", 5000), ("size", 128), ("views", 4), ("repeats", 15)):
        parser.add_argument(f"--{flag}", type=int, default=default)
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    parser.add_argument("--scenes", nargs="+", default=list(SCENES), choices=SCENES)
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), choices=BACKENDS)
    parser.add_argument("--ply", type=Path, default=CHAIR, help="a splat to render as the scene 'chair'")
    parser.add_argument("--floor", action="store_true", help="also count the least time, see renderer_floor.py")
    parser.add_argument("--memory", action="store_true", help="peak memory over Gaussians and pixels instead of times")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--row", nargs=2, metavar=("SCENE", "BACKEND"), help=argparse.SUPPRESS)
    return parser.parse_args()


def times(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure and print the table of times."""
    print(f"{options.n} Gaussians, {options.views} views of {options.size} px")
    print("scene    backend   threads  forward backward total ms   ratio  first ms      MB   floor  /floor")
    rows, slow = [], {}
    for name in options.scenes:
        for backend in options.backends:
            if reason := refusal(name, backend, options):
                print(f"{name:8} {backend:9} {reason}")
                continue
            for threads in options.threads if backend == "cpu" else options.threads[-1:]:
                row = run(name, backend, options, threads, options.n, options.size)
                rows.append(row)
                if backend == "reference":
                    slow[name] = row["total_ms"]
                if name in slow:
                    row["ratio"] = slow[name] / row["total_ms"]
                ratio, least = row.get("ratio", math.nan), row.get("floor_ms", math.nan)
                print(
                    f"{name:8} {backend:9} {threads:7} {row['forward_ms']:8.2f} {row['backward_ms']:8.2f}"
                    f" {row['total_ms']:8.2f} {ratio:7.1f} {row['first_ms']:9.0f} {row['peak_mb']:7.1f}"
                    f" {least:7.2f} {row['total_ms'] / least:7.2f}",
                    flush=True,
                )
    return rows


def memory(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure and print the table of peak memory: over Gaussians at 128 px, over pixels at 10,000 Gaussians."""
    options.views, options.repeats, options.floor = 1, 2, False
    rows = []
    for backend in options.backends:
        if backend == "reference" or refusal("full", backend, options):
            continue
        for count, size in [*((count, 128) for count in COUNTS), *((10_000, size) for size in SIZES)]:
            row = run("full", backend, options, options.threads[-1], count, size)
            rows.append(row)
            print(f"{backend:9} {count:9,} Gaussians {size:5} px {row['peak_mb']:8.1f} MB", flush=True)
    return rows


def main() -> None:
    """Run every row in its own process, print the table and write it."""
    options = arguments()
    if options.row:
        print(json.dumps(measure(options.row[0], options.row[1], options)))
        return
    rows = memory(options) if options.memory else times(options)
    if options.json:
        settings = {key: getattr(options, key) for key in ("n", "size", "views", "threads")}
        place = environment(choose("auto"), "float32")
        write_json(options.json, {"environment": place, "settings": settings, "rows": rows})


if __name__ == "__main__":
    main()
