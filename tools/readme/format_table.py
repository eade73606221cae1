"""Measure every format: size, times, and what a round trip loses; and every frame of a PLY.

    PYTHONPATH=tests python tools/readme/format_table.py [--json FILE] [--node CLI] [--gaussians N N]

Scenes are the tests' textured stone, with view-dependent colour and without, and a chair that was optimised (670
Gaussians). Pictures are those of six held-out cameras, their PSNR is to pictures of the scene as it was. The reader is
the program's own; beside it are the tests' decoders, which share nothing with it or the writers, and CLI, which is
``bin/cli.mjs`` of the npm package @playcanvas/splat-transform, for the formats that it reads. How far Gaussians move is
the largest distance of one that was written to the nearest that is read, or the other way round. In each frame the
stone goes through a PLY.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from export.decoders import READERS, read_plain_ply
from export.scenes import pebble, pictures, psnr
from scipy.spatial import KDTree

from gsdistill.core.device import processor
from gsdistill.core.frames import FRAMES
from gsdistill.core.structs import Gaussians
from gsdistill.disk.write import write_json
from gsdistill.export.formats import writer_for
from gsdistill.export.settings import ExportSettings, extensions
from gsdistill.scene.read import read_splat
from gsdistill.scene.turn import from_frame

ROOT = Path(__file__).resolve().parents[2]
SIZE = 256  # pixels
SECOND_READER_LACKS = {".glb"}
EQUAL = 120.0  # decibels: what float32 and the order of sums alone make


def scenes(counts: tuple[int, int]) -> Iterator[tuple[str, Gaussians]]:
    """The scenes by name, degree by degree."""
    yield "chair", read_splat(ROOT / "tests" / "data" / "chair.ply")
    for degree in (0, 3):
        for count in counts:
            yield f"{count:,} SH {degree}", pebble(count, degree)


def measured(extension: str, scene: Gaussians, truth: torch.Tensor, folder: Path, cli: Path | None) -> dict[str, Any]:
    """Write and read back; seconds are those of a processor."""
    path = folder / f"scene{extension}"
    writer = writer_for(path, ExportSettings())
    row = {"seconds": fastest(lambda: writer.write(scene, path)), "seconds_to_read": fastest(lambda: read_splat(path))}
    found, decoded = read_splat(path), from_frame(READERS[extensions()[extension]](path), writer.axes)
    row |= {"bytes": path.stat().st_size, "gaussians_read": len(found), "moved": moved(scene, found)}
    row |= {"psnr": psnr(pictures(found, SIZE), truth), "psnr_tests_reader": psnr(pictures(decoded, SIZE), truth)}
    if cli and extension not in SECOND_READER_LACKS:
        plain = folder / "plain.ply"
        command = ["node", str(cli), "--overwrite", "--quiet", str(path), str(plain)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        row["psnr_second_reader"] = psnr(pictures(from_frame(read_plain_ply(plain), writer.axes), SIZE), truth)
    return row


def fastest(act: Callable[[], object]) -> float:
    """The processor's seconds of the faster of two calls, after one that is not measured."""
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        act()
        seconds.append(time.process_time() - begin)
    return min(seconds[1:])


def moved(scene: Gaussians, found: Gaussians) -> float:
    """The largest distance of a Gaussian to the nearest one of the other, world units."""
    places = [each.means.double().numpy() for each in (scene, found)]
    return max(float(KDTree(one).query(other)[0].max()) for one, other in (places, places[::-1]))


def measure(counts: tuple[int, int], cli: Path | None) -> list[dict[str, Any]]:
    """One row for each scene and format."""
    rows = []
    with TemporaryDirectory() as folder:
        for name, scene in scenes(counts):
            truth = pictures(scene, SIZE)
            for extension in extensions():
                told = {"format": extension, "scene": name, "gaussians": len(scene), "sh_degree": scene.sh_degree}
                rows.append(told | measured(extension, scene, truth, Path(folder), cli))
    return rows


def measure_frames(scene: Gaussians) -> dict[str, float]:
    """PSNR of pictures of what a PLY in each frame is read as."""
    truth, found = pictures(scene, SIZE), {}
    with TemporaryDirectory() as folder:
        for frame in FRAMES:
            path = Path(folder) / "scene.ply"
            writer_for(path, ExportSettings(frame=frame)).write(scene, path)
            found[frame] = psnr(pictures(read_splat(path), SIZE), truth)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a line for each format: sizes and times; and what a round trip loses, by each reader."""
    names = list(dict.fromkeys(row["scene"] for row in rows))
    last = names[-1]
    sizes = [["format", *names, f"CPU seconds to write {last}", "to read it"]]
    losses = [["format", *(f"PSNR, {name}" for name in names), *(f"moved, {name}" for name in names), "PSNR by others"]]
    for extension in dict.fromkeys(row["format"] for row in rows):
        by = {row["scene"]: row for row in rows if row["format"] == extension}
        times = [f"{by[last][key]:.2f}" for key in ("seconds", "seconds_to_read")]
        sizes.append([f"`{extension}`", *(_size(by[name]["bytes"]) for name in names), *times])
        others = [by[last].get(f"psnr_{which}_reader") for which in ("tests", "second")]
        losses.append(
            [
                f"`{extension}`",
                *(_decibels(by[name]["psnr"]) for name in names),
                *(f"{by[name]['moved']:.1g}" for name in names),
                " / ".join("-" if value is None else _decibels(value) for value in others),
            ]
        )
    return "\n\n".join(_markdown(lines) for lines in (sizes, losses))


def _markdown(lines: list[list[str]]) -> str:
    ruled = [lines[0], ["---"] + ["---:"] * (len(lines[0]) - 1), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled)


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _decibels(value: float) -> str:
    return "equal" if value >= EQUAL else f"{value:.1f}"


def main() -> None:
    """Measure, print the table and keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, default=ROOT / "tools" / "readme" / "results" / "formats.json")
    parser.add_argument("--node", type=Path, help="bin/cli.mjs of @playcanvas/splat-transform")
    parser.add_argument("--gaussians", type=int, nargs=2, default=(10_000, 100_000), help="of the stone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(tuple(options.gaussians), options.node)
    frames = measure_frames(pebble(options.gaussians[0], 3))
    write_json(options.json, {"processor": processor(), "pixels": SIZE, "rows": rows, "frames": frames})
    print(table(rows))
    print("\n| frame | PSNR of .ply and back |\n|---|---:|")
    print("\n".join(f"| `{frame}` | {decibels:.0f} |" for frame, decibels in frames.items()))


if __name__ == "__main__":
    main()
