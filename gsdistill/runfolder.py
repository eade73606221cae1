"""The folder of a run: claimed before the work, kept whole during it, completed at the end.

config.yaml        resolved settings, reloadable by --config
metrics.jsonl      one record per logged step
start.png          what the run starts from
preview.png        the training views of a late step
checkpoint.safetensors   while the run is unfinished
snapshots/step-000030.ply   the splat on its way, for viewers
gaussians.ply and other formats, views.png, turntable.mp4, summary.json   at the end
evaluation.json, report.html   written by gsdistill.pages
"""

from __future__ import annotations

import json
import math
import platform
import re
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from gsdistill import __version__
from gsdistill.device import peak_memory
from gsdistill.errors import ConfigError, OutputError
from gsdistill.export.base import Writer
from gsdistill.export.pictures import contact_sheet, preview, turntable
from gsdistill.export.ply import Ply
from gsdistill.export.settings import extensions
from gsdistill.files import write_json, write_text
from gsdistill.prior.base import CameraRange
from gsdistill.structs import Gaussians
from gsdistill.training import checkpoint
from gsdistill.training.loop import Optimisation, StepRecord
from gsdistill.yaml_dialect import dump

__all__ = ["RunFolder", "leaves", "snapshots"]

SNAPSHOTS = "snapshots"
_PACKAGES = ("torch", "diffusers", "transformers", "gsplat", "numba", "numpy")

# Settings that do not change the optimisation, and may differ when a run is resumed.
_FREE = (
    *("output", "log_every", "preview_every", "checkpoint_every", "snapshots"),
    *("export.formats", "export.frame", "export.sh_pad"),
)


class RunFolder:
    """Writes all files of one run."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self._settings = path, settings
        self.checkpoint = path / "checkpoint.safetensors"
        self._records: list[dict[str, Any]] = []
        self._saved = self._began = time.perf_counter()

    def check(self, resume: bool, overwrite: bool) -> None:
        """Refuse a folder that cannot serve, before any work and without changing it.

        Raises:
            OutputError: it holds a run already, it is no folder, or there is nothing to resume.
        """
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file; choose another --output")
        if resume:
            if not self.checkpoint.exists():
                raise OutputError(f"{self.path} holds no checkpoint to resume; a finished run has none")
            return
        taken = self.path.is_dir() and any(self.path.iterdir())
        if taken and not overwrite:
            hint = "--resume goes on with it, " if self.checkpoint.exists() else ""
            raise OutputError(f"{self.path} is not empty; {hint}--overwrite replaces it, --output picks another folder")

    def begin(self) -> None:
        """Take the folder for a new run, once everything that a user can get wrong has been checked."""
        pictures = ("views.png", "turntable.mp4", "preview.png", "start.png", "report.html")
        splats = [f"gaussians{extension}" for extension in extensions()]
        figures = ("metrics.jsonl", "summary.json", "evaluation.json", "failure.json")
        for name in (*pictures, *splats, *figures, self.checkpoint.name):
            (self.path / name).unlink(missing_ok=True)
        for snapshot in snapshots(self.path).values():
            snapshot.unlink()
        write_text(self.path / "config.yaml", dump(self._settings))

    def restore(self, run: Optimisation) -> None:
        """Bring ``run`` to the checkpoint and drop the records of later steps.

        Raises:
            BadFile: the checkpoint is not whole. ConfigError: it is of a run with other settings.
        """
        saved = checkpoint.load(run, self.checkpoint)
        now, before = dict(leaves(self._settings)), dict(leaves(saved))
        other = [f"{name} = {value}" for name, value in before.items() if now.get(name) != value and name not in _FREE]
        if other:
            raise ConfigError(
                f"--resume needs the settings of the run in {self.path}, which had {', '.join(other)}; "
                f"--config {self.path} takes them, where no flag says otherwise"
            )
        log = self.path / "metrics.jsonl"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        records = [json.loads(line) for line in lines if line.endswith("}")]
        self._records = [record for record in records if record["step"] <= run.done]
        write_text(self.path / "config.yaml", dump(self._settings))

    def log(self, record: StepRecord, seconds: float) -> None:
        """Remember one record; it reaches the disk with the next checkpoint or preview."""
        figures = {name: round(float(value), 6) for name, value in record.figures.items()}
        loss = float(record.loss)
        facts = {
            "step": record.step,
            "loss": loss if math.isfinite(loss) else None,
            "gaussians": record.count,
            "finite": bool(record.finite),
        }
        self._records.append({**facts, "seconds": round(seconds, 3), **figures})

    def picture_start(self, gaussians: Gaussians, cameras: CameraRange | None) -> None:
        """Draw what the run starts from."""
        distance, fov = _viewpoint(cameras)
        contact_sheet(gaussians, self.path / "start.png", size=192, distance=distance, fov=fov)

    def preview(self, record: StepRecord) -> None:
        """Replace the preview picture."""
        preview(record.images, self.path / "preview.png")
        self._write_records()

    def save(self, run: Optimisation, after: float = 0.0) -> None:
        """Write a checkpoint, if the last one is at least ``after`` seconds old."""
        if time.perf_counter() - self._saved < after:
            return
        checkpoint.save(run, self.checkpoint, self._settings)
        self._write_records()
        self._saved = time.perf_counter()

    def snapshot(self, step: int, gaussians: Gaussians) -> None:
        """Keep the splat as it is after ``step``."""
        Ply().write(gaussians, self.path / SNAPSHOTS / f"step-{step:06d}.ply")

    def splats(self, gaussians: Gaussians, writers: Mapping[str, Writer]) -> None:
        """Write the splat to each file; what there is of an earlier one goes."""
        earlier = {f"gaussians{extension}" for extension in extensions()} - writers.keys()
        for name in ("evaluation.json", *earlier):
            (self.path / name).unlink(missing_ok=True)
        for name, writer in writers.items():
            writer.write(gaussians, self.path / name)

    def pictures(self, gaussians: Gaussians, cameras: CameraRange | None, video: bool = True) -> None:
        """Write the contact sheet and the turntable of the splat."""
        distance, fov = _viewpoint(cameras)
        contact_sheet(gaussians, self.path / "views.png", size=192, distance=distance, fov=fov)
        if video:
            turntable(gaussians, self.path / "turntable.mp4", distance=distance, fov=fov)

    def finish(self, run: Optimisation, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write the records and summary.json, and remove the checkpoint; returns the summary."""
        run.clock.settle(wait=True)
        phases = run.clock.seconds
        steps = sum(phases.values())
        summary = {
            **facts,
            "seconds": round(time.perf_counter() - self._began, 2),
            "seconds_by_phase": {name: round(value, 3) for name, value in phases.items()},
            "milliseconds_per_step": {name: round(1e3 * value / run.done, 2) for name, value in phases.items()},
            "iterations": run.done,
            "iterations_per_second": round(run.done / steps, 3),
            "skipped_steps": run.skipped,
            "network_evaluations": run.evaluations,
            "peak_memory_mb": round(peak_memory(torch.device("cpu")) / 2**20),
            "device": str(run.params["means"].device),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "versions": {"gsdistill": __version__, **{name: version(name) for name in _PACKAGES}},
        }
        self._write_records()
        write_json(self.path / "summary.json", summary)
        self.checkpoint.unlink(missing_ok=True)
        return summary

    def _write_records(self) -> None:
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in self._records))


def snapshots(folder: Path) -> dict[int, Path]:
    """The splats that a run has kept on its way, by step, in order."""
    found = (re.fullmatch(r"step-(\d+)\.ply", path.name) for path in (folder / SNAPSHOTS).glob("step-*.ply"))
    return {int(match[1]): folder / SNAPSHOTS / match[0] for match in sorted(found, key=str) if match}


def _viewpoint(cameras: CameraRange | None) -> tuple[float, float]:
    """Distance and field of view of the pictures: as the prior was trained, or as cameras stand by default."""
    return (cameras.distance, cameras.fov) if cameras else (3.2, 40.0)


def leaves(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its dotted name."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
