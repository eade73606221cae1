"""The folder of a run: claimed before the work, kept whole during it, completed at the end.

config.yaml        resolved settings, reloadable by --config
metrics.jsonl      one record per logged step
start.png          what the run starts from
preview.png        the training views of a late step
checkpoints/step-000120.safetensors   the last two, while the run is unfinished
snapshots/step-000030.ply   the splat on its way, for viewers
gaussians.ply and other formats, views.png, turntable.mp4, summary.json   at the end
tensorboard, wandb   where the run was to be logged there too
evaluation.json, report.html   written by gsdistill.pages
"""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from gsdistill import __version__
from gsdistill.core.device import peak_memory
from gsdistill.core.errors import ConfigError, OutputError
from gsdistill.core.structs import Gaussians
from gsdistill.disk.lock import Claim
from gsdistill.disk.read import read_records
from gsdistill.disk.write import check_folder, remove_drafts, write_json, write_text
from gsdistill.export.base import Writer
from gsdistill.export.pictures import write_contact_sheet, write_preview, write_turntable
from gsdistill.export.ply import Ply
from gsdistill.export.settings import extensions
from gsdistill.prior.base import CameraRange
from gsdistill.run.changes import command, differences, differing
from gsdistill.run.folder import CONFIG, EVALUATION, FAILURE, RECORDS, SNAPSHOTS, SUMMARY, snapshots
from gsdistill.settings.yaml import dump, load_yaml
from gsdistill.training import checkpoint
from gsdistill.training.distiller import Distiller, Step

__all__ = [
    "RunFolder",
]

LOCK = ".lock"
_PACKAGES = ("torch", "diffusers", "transformers", "gsplat", "numba", "numpy")

_THRIFT = 50  # times as long as a checkpoint takes, before the next one: they cost 2 % of a run at most


class RunFolder:
    """Writes all files of one run."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self._settings = path, settings
        self.checkpoints = path / "checkpoints"
        self._records: list[dict[str, Any]] = []
        self._saved = self._began = time.perf_counter()
        self._saving = self._cost = 0.0  # seconds that checkpoints took: all, and the last one
        self._kept: int | None = None  # the step of the last checkpoint
        self._claim = Claim(path / LOCK)

    def is_finished(self) -> bool:
        """Whether it holds this very run with all its files.

        Raises:
            ConfigError: it holds a finished run with other settings, which has nothing to go on from.
        """
        if not (self.path / SUMMARY).exists() or checkpoint.find(self.checkpoints):
            return False
        before = load_yaml(self.path / CONFIG)
        if changed := differing(self._settings, before, self.path):
            raise ConfigError(
                f"the run in {self.path} is finished, with other settings: {', '.join(changed.values())}; --overwrite "
                "makes it anew, --output picks another folder"
            )
        return True

    def check(self, resume: bool, overwrite: bool) -> None:
        """Refuse a folder that cannot serve, before any work and without changing it.

        Raises:
            OutputError: it holds a run already, it is no folder, or there is nothing to resume.
        """
        check_folder(self.path)
        there = checkpoint.find(self.checkpoints)
        if resume:
            if not there:
                hint = (
                    "; --overwrite starts it anew" if self._taken() else ", nor anything else; start without --resume"
                )
                raise OutputError(f"{self.path} holds no checkpoint to resume{hint}")
        elif self._taken() and not overwrite:
            hint = "--resume goes on with it, " if there else ""
            raise OutputError(f"{self.path} is not empty; {hint}--overwrite replaces it, --output picks another folder")

    def _taken(self) -> bool:
        return self.path.is_dir() and any(path.name != LOCK for path in self.path.iterdir())

    @contextmanager
    def claimed(self, resume: bool, overwrite: bool) -> Iterator[None]:
        """Hold the folder for this process alone; drafts of one that was killed go.

        Raises:
            OutputError: another process holds it, or, as :meth:`check`, has used it in the meantime.
        """
        with self._claim as claim:
            if not claim.take():
                raise OutputError(f"another run is at work in {self.path}; wait for it, or choose another --output")
            self.check(resume, overwrite)
            for folder in (self.path, self.checkpoints, self.path / SNAPSHOTS):
                remove_drafts(folder)
            yield

    def begin(self, run: Distiller) -> None:
        """Take the folder for a new run, once everything that a user can get wrong has been checked."""
        pictures = ("views.png", "turntable.mp4", "preview.png", "start.png", "report.html")
        splats = [f"gaussians{extension}" for extension in extensions()]
        figures = (RECORDS, EVALUATION, FAILURE)
        (self.path / SUMMARY).unlink(missing_ok=True)  # first: it says that the earlier run is all there
        checkpoint.drop(self.checkpoints)
        for name in (*pictures, *splats, *figures):
            (self.path / name).unlink(missing_ok=True)
        for snapshot in snapshots(self.path).values():
            snapshot.unlink()
        for log in ("tensorboard", "wandb"):
            shutil.rmtree(self.path / log, ignore_errors=True)
        write_text(self.path / CONFIG, dump(self._settings))
        self.save(run)

    def last(self, accept_changes: bool = False) -> tuple[checkpoint.Checkpoint, list[str], list[str]]:
        """The last whole checkpoint, what is wrong with later ones, and the settings that differ from its; reads only.

        Raises:
            BadFile: no checkpoint is whole. ConfigError: it is of a run with other settings, and changes are not
                accepted, or one of them cannot be made on the way.
        """
        saved, damaged = checkpoint.read_last(self.checkpoints)
        changes = differences(self._settings, saved.settings, self.path, accept_changes)
        done, wanted = saved.counters.done, self._settings["iterations"]
        if done > wanted:
            raise ConfigError(f"iterations = {wanted}: the run in {self.path} has made {done} steps already")
        return saved, damaged, changes

    def restore(self, run: Distiller, accept_changes: bool = False) -> list[str]:
        """Restore ``run`` from the last whole checkpoint and drop later records; return lines for the user.

        Raises what :meth:`last` does, and BadFile where the checkpoint is not of such a run.
        """
        saved, damaged, changes = self.last(accept_changes)
        done = saved.counters.done
        checkpoint.restore(run, saved)
        self._kept = done
        self._records = [record for record in read_records(self.path / RECORDS) if record["step"] <= done]
        if changes:
            run.forgiven = run.skipped
            self.save(run)
        write_text(self.path / CONFIG, dump(self._settings))
        later = takewhile(lambda path: path != saved.path, checkpoint.find(self.checkpoints))
        for path in (*later, *(path for step, path in snapshots(self.path).items() if step > done)):
            path.unlink(missing_ok=True)
        now = _made_with(run)
        other = [f"{name} {value}" for name, value in saved.versions.items() if now.get(name) != value]
        notes = [f"{line}; the checkpoint before it is taken" for line in damaged]
        notes += [f"from step {done} on: {change}" for change in changes]
        if other:
            notes.append(f"the checkpoint is of {', '.join(other)}: here the run may end otherwise")
        return notes

    def log(self, record: dict[str, Any]) -> None:
        """Remember the figures of one step; they reach the disk with the next checkpoint or preview."""
        self._records.append(record)

    def picture_start(self, gaussians: Gaussians, cameras: CameraRange | None) -> None:
        """Draw what the run starts from."""
        distance, fov = _viewpoint(cameras)
        write_contact_sheet(gaussians, self.path / "start.png", size=192, distance=distance, fov=fov)

    def preview(self, record: Step) -> None:
        """Replace the preview picture."""
        write_preview(record.images, self.path / "preview.png")
        self._write_records()

    def save(self, run: Distiller, after: float = 0.0) -> None:
        """Write a checkpoint, if the last one is ``after`` seconds old, and fifty times as old as it took to write.

        With ``after`` = 0 that is always. A folder that has vanished is made anew.

        Raises:
            OutputError: the disk refuses, or another run has taken the folder after it had vanished.
        """
        began = time.perf_counter()
        if after and began - self._saved < max(after, _THRIFT * self._cost):
            return
        if not self._claim.take():
            raise OutputError(f"{self.path} had vanished, and another run has taken its name; this one cannot go on")
        if not (self.path / CONFIG).exists():
            write_text(self.path / CONFIG, dump(self._settings))
        self._write_records()  # first: a resumed run drops records that are too new, and cannot restore missing ones
        checkpoint.save(run, self.checkpoints, self._settings, _made_with(run))
        self._kept, self._saved = run.done, time.perf_counter()
        self._cost = self._saved - began
        self._saving += self._cost

    @contextmanager
    def rescuing(self, run: Distiller, tell: Callable[[str], None]) -> Iterator[None]:
        """Where an error ends the block, save the run if it is consistent, and ``tell`` how to go on."""
        try:
            yield
        except BaseException as error:
            if run.consistent and self._kept != run.done and not isinstance(error, KeyboardInterrupt):
                with suppress(Exception):  # of what broke the block: a full disk, a lost device
                    self.save(run)
            with suppress(OSError, OutputError):  # of a terminal or a folder that has gone
                if self._claim.take() and checkpoint.find(self.checkpoints):
                    stopped = "stopped; " if isinstance(error, KeyboardInterrupt) else ""
                    tell(f"{stopped}all is kept up to step {self._kept}; go on with: {command(self.path)}")
            raise

    def snapshot(self, step: int, gaussians: Gaussians) -> None:
        """Keep the splat as it is after ``step``."""
        Ply().write(gaussians, self.path / SNAPSHOTS / f"step-{step:06d}.ply")

    def splats(self, gaussians: Gaussians, writers: Mapping[str, Writer]) -> list[str]:
        """Write the splat to each file; those of an earlier one go. Returns lines on what the files cannot hold."""
        earlier = {f"gaussians{extension}" for extension in extensions()} - writers.keys()
        for name in (EVALUATION, *earlier):
            (self.path / name).unlink(missing_ok=True)
        told = {name: writer.write(gaussians, self.path / name) for name, writer in writers.items()}
        return [f"{name}: {note}" for name, notes in told.items() for note in notes]

    def pictures(self, gaussians: Gaussians, cameras: CameraRange | None, video: bool = True) -> None:
        """Write the contact sheet and the turntable of the splat."""
        distance, fov = _viewpoint(cameras)
        write_contact_sheet(gaussians, self.path / "views.png", size=192, distance=distance, fov=fov)
        if video:
            write_turntable(gaussians, self.path / "turntable.mp4", distance=distance, fov=fov)

    def finish(self, run: Distiller, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write the records and summary.json, and return the summary; the checkpoints stay until :meth:`close`."""
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
            "checkpoint_seconds": round(self._saving, 3),
            "network_evaluations": run.evaluations,
            "peak_memory_mb": round(peak_memory(run.representation.device) / 2**20) or None,
            "device": str(run.representation.device),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "versions": versions(),
        }
        self._write_records()
        write_json(self.path / SUMMARY, summary)
        return summary

    def close(self) -> None:
        """The last act of a run whose files are all there: remove the checkpoints."""
        checkpoint.drop(self.checkpoints)

    def _write_records(self) -> None:
        write_text(self.path / RECORDS, "".join(json.dumps(record) + "\n" for record in self._records))


def _made_with(run: Distiller) -> dict[str, str]:
    """All besides the settings on which a run's numbers depend."""
    return {**versions(), "device": str(run.representation.device)}


@cache  # every checkpoint asks
def versions() -> dict[str, str]:
    """The versions of this package, and of those that decide what a run's numbers are."""
    return {"gsdistill": __version__, **{name: version(name) for name in _PACKAGES}}


def _viewpoint(cameras: CameraRange | None) -> tuple[float, float]:
    """Distance and field of view of the pictures: as the prior was trained, or as cameras stand by default."""
    return (cameras.distance, cameras.fov) if cameras else (3.2, 40.0)
