"""Writes the folder of a run: locks it before the work, keeps it whole during it, and completes it at the end.

config.yaml        the resolved settings, which --config can load again
metrics.jsonl      one record per logged step
start.png          the splat that the run starts from
preview.png        the training views of a recent step
checkpoints/step-000120.safetensors   the last two, until the run is finished
snapshots/step-000030.ply   the splat after some of the steps, for viewers
gaussians.ply and other formats, views.png, turntable.mp4, summary.json   at the end
particles/2/gaussians.ply and views.png   at the end, of the second scene and the others, if the run has several
tensorboard, wandb   folders of these logs, if the run has them
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
from gsdistill.run.changes import checked_changes, command, differing
from gsdistill.run.read import CONFIG, EVALUATION, FAILURE, PARTICLES, RECORDS, SNAPSHOTS, SUMMARY, snapshots
from gsdistill.settings.yaml import dump, load_yaml
from gsdistill.training import checkpoint
from gsdistill.training.distiller import Distiller, Step

__all__ = ["RunFolder"]

LOCK = ".lock"
_PACKAGES = ("torch", "diffusers", "transformers", "gsplat", "numba", "numpy")
_THRIFT = 50  # a checkpoint waits for 50 times as long as the last one took, so that they cost 2 % of a run at most


class RunFolder:
    """Writes all files of one run."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self._settings = path, settings
        self.checkpoints = path / "checkpoints"
        self._records: list[dict[str, Any]] = []
        self._saved_at = self._began = time.perf_counter()
        self._saving = self._cost = 0.0  # seconds: of all checkpoints, and of the last one
        self._saved_step: int | None = None  # that the last checkpoint was written after
        self._claim = Claim(path / LOCK)

    def is_finished(self) -> bool:
        """Whether the folder holds this run, with the same settings and all files.

        Raises:
            ConfigError: it holds a finished run with other settings, which leaves no checkpoint to go on from.
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
        """Refuse a folder that the run cannot use. It is called before any work, and changes nothing.

        Raises:
            OutputError: the folder is not empty, is no folder, cannot be written, or has no checkpoint to resume.
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
        """Lock the folder for this process in the block, and remove what a killed process left half written.

        Raises:
            OutputError: another process has locked it; or as :meth:`check`, if it has changed in the meantime.
        """
        with self._claim as claim:
            if not claim.take():
                raise OutputError(f"another run is at work in {self.path}; wait for it, or choose another --output")
            self.check(resume, overwrite)
            for folder in (self.path, self.checkpoints, self.path / SNAPSHOTS):
                remove_drafts(folder)
            yield

    def begin(self, run: Distiller) -> None:
        """Remove the files of an earlier run, and write the settings and the first checkpoint of this one."""
        pictures = ("views.png", "turntable.mp4", "preview.png", "start.png", "report.html")
        splats = [f"gaussians{extension}" for extension in extensions()]
        figures = (RECORDS, EVALUATION, FAILURE)
        (self.path / SUMMARY).unlink(missing_ok=True)  # first, because it says that the earlier run is complete
        checkpoint.drop(self.checkpoints)
        for name in (*pictures, *splats, *figures):
            (self.path / name).unlink(missing_ok=True)
        for snapshot in snapshots(self.path).values():
            snapshot.unlink()
        for folder in ("tensorboard", "wandb", PARTICLES):
            shutil.rmtree(self.path / folder, ignore_errors=True)
        write_text(self.path / CONFIG, dump(self._settings))
        self.save(run)

    def last(self, accept_changes: bool = False) -> tuple[checkpoint.Checkpoint, list[str], list[str]]:
        """The last whole checkpoint, a line on each broken one after it, and a line on each setting that has changed.

        Nothing is written.

        Raises:
            BadFile: no checkpoint is whole. ConfigError: it is of a run with other settings and ``accept_changes`` is
                not set, or one of them may not change during a run, or it has more steps than are asked for.
        """
        saved, damaged = checkpoint.read_last(self.checkpoints)
        changes = checked_changes(self._settings, saved.settings, self.path, accept_changes)
        done, wanted = saved.counters.done, self._settings["iterations"]
        if done > wanted:
            raise ConfigError(f"iterations = {wanted}: the run in {self.path} has made {done} steps already")
        return saved, damaged, changes

    def restore(self, run: Distiller, accept_changes: bool = False) -> list[str]:
        """Restore ``run`` from the last whole checkpoint, and remove all that is later; returns lines for the user.

        Raises:
            BadFile, ConfigError: as :meth:`last`. BadFile: the checkpoint does not fit the run.
        """
        saved, damaged, changes = self.last(accept_changes)
        done = saved.counters.done
        checkpoint.restore(run, saved)
        self._saved_step = done
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
        """Add the record of one step, which is written with the next checkpoint or preview."""
        self._records.append(record)

    def picture_start(self, gaussians: Gaussians, cameras: CameraRange | None) -> None:
        """Write start.png, a contact sheet of the splat that the run starts from."""
        distance, fov = _viewpoint(cameras)
        write_contact_sheet(gaussians, self.path / "start.png", size=192, distance=distance, fov=fov)

    def preview(self, step: Step) -> None:
        """Write preview.png, the views of a step, and the records so far."""
        write_preview(step.images, self.path / "preview.png")
        self._write_records()

    def save(self, run: Distiller, after: float = 0.0) -> None:
        """Write a checkpoint if ``after`` seconds, and fifty times as long as the last one took, have passed since it.

        With ``after`` = 0 it is always written. A folder that has vanished is made again.

        Raises:
            OutputError: a file cannot be written, or the folder had vanished and another run has taken its name.
        """
        began = time.perf_counter()
        if after and began - self._saved_at < max(after, _THRIFT * self._cost):
            return
        if not self._claim.take():
            raise OutputError(f"{self.path} had vanished, and another run has taken its name; this one cannot go on")
        if not (self.path / CONFIG).exists():
            write_text(self.path / CONFIG, dump(self._settings))
        self._write_records()  # first: a resumed run drops records that are too new, and cannot restore missing ones
        checkpoint.save(run, self.checkpoints, self._settings, _made_with(run))
        self._saved_step, self._saved_at = run.done, time.perf_counter()
        self._cost = self._saved_at - began
        self._saving += self._cost

    @contextmanager
    def rescuing(self, run: Distiller, tell: Callable[[str], None]) -> Iterator[None]:
        """If an error ends the block, save the run if its state is consistent, and ``tell`` the user how to go on."""
        try:
            yield
        except BaseException as error:
            if run.consistent and self._saved_step != run.done and not isinstance(error, KeyboardInterrupt):
                with suppress(Exception):  # what ended the block may stop this too: a full disk, a lost device
                    self.save(run)
            with suppress(OSError, OutputError):  # the terminal or the folder may be gone
                if self._claim.take() and checkpoint.find(self.checkpoints):
                    stopped = "stopped; " if isinstance(error, KeyboardInterrupt) else ""
                    tell(f"{stopped}all is kept up to step {self._saved_step}; go on with: {command(self.path)}")
            raise

    def snapshot(self, step: int, gaussians: Gaussians) -> None:
        """Write the splat after ``step`` as a snapshot."""
        Ply().write(gaussians, self.path / SNAPSHOTS / f"step-{step:06d}.ply")

    def splats(self, gaussians: Gaussians, writers: Mapping[str, Writer]) -> list[str]:
        """Write the final splat with each writer, by file name; returns lines on what the formats cannot hold.

        Files of an earlier splat in other formats, and its figures, are removed.
        """
        earlier = {f"gaussians{extension}" for extension in extensions()} - writers.keys()
        for name in (EVALUATION, *earlier):
            (self.path / name).unlink(missing_ok=True)
        notes = {name: writer.write(gaussians, self.path / name) for name, writer in writers.items()}
        return [f"{name}: {note}" for name, lines in notes.items() for note in lines]

    def pictures(self, gaussians: Gaussians, cameras: CameraRange | None, video: bool = True) -> None:
        """Write views.png, a contact sheet of the splat, and with ``video`` turntable.mp4."""
        distance, fov = _viewpoint(cameras)
        write_contact_sheet(gaussians, self.path / "views.png", size=192, distance=distance, fov=fov)
        if video:
            write_turntable(gaussians, self.path / "turntable.mp4", distance=distance, fov=fov)

    def finish(self, run: Distiller, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write the records and summary.json, which has ``facts`` and the run's times; returns the summary.

        The checkpoints stay until :meth:`close`.
        """
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
        """Remove the checkpoints, once all files of the finished run are written."""
        checkpoint.drop(self.checkpoints)

    def _write_records(self) -> None:
        write_text(self.path / RECORDS, "".join(json.dumps(record) + "\n" for record in self._records))


def _made_with(run: Distiller) -> dict[str, str]:
    """What a run's numbers depend on besides its settings: versions and the device."""
    return {**versions(), "device": str(run.representation.device)}


@cache  # every checkpoint asks
def versions() -> dict[str, str]:
    """The versions of gsdistill and of the packages on which a run's numbers depend, by name."""
    return {"gsdistill": __version__, **{name: version(name) for name in _PACKAGES}}


def _viewpoint(cameras: CameraRange | None) -> tuple[float, float]:
    """Distance (world units) and field of view (degrees) of the pictures: the prior's, or the default of cameras."""
    return (cameras.distance, cameras.fov) if cameras else (3.2, 40.0)
