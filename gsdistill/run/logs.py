"""Listeners that send a run's figures and previews to TensorBoard and to Weights & Biases.

They log the steps that metrics.jsonl has, and write into the run's folder. W&B follows its own settings: with
WANDB_MODE=offline it sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from gsdistill.core.errors import UserError
from gsdistill.core.extras import require
from gsdistill.disk.places import slug
from gsdistill.disk.write import write_text
from gsdistill.run.config import RunConfig
from gsdistill.run.watch import Watch
from gsdistill.settings.config import to_dict
from gsdistill.training.distiller import Distiller, Step
from gsdistill.training.listener import Listener

__all__ = ["LOGS", "TensorBoard", "WeightsAndBiases", "check_logs"]


class TensorBoard(Listener):
    """Writes event files to ``tensorboard`` in the run's folder."""

    def __init__(self, folder: Path, config: RunConfig, watch: Watch, done: int) -> None:
        """Go on after ``done`` steps: events of later ones are dropped. ``watch`` must hear of a step before this."""
        from torch.utils.tensorboard import SummaryWriter

        self._watch, self._every = watch, config.preview_every
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1 if done else None)

    def on_step(self, step: Step, run: Distiller) -> None:
        """Write what is due, and flush it to the disk, for a run may be killed."""
        pictured = step.number % self._every == 0
        figures = _figures(self._watch)
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step.number)
        if pictured:
            self._writer.add_images("views", step.images.clamp(0, 1), step.number, dataformats="NHWC")
        if figures or pictured:
            self._writer.flush()

    def on_end(self, run: Distiller) -> None:
        """Close the file."""
        self._writer.close()


class WeightsAndBiases(Listener):
    """Logs to a run of the W&B project ``gsdistill``; ``wandb/id`` in the run's folder keeps its id for --resume."""

    def __init__(self, folder: Path, config: RunConfig, watch: Watch, done: int) -> None:
        """As :class:`TensorBoard`. Raises UserError if W&B refuses."""
        wandb = import_module("wandb")
        self._wandb, self._watch, self._every = wandb, watch, config.preview_every
        id_file = folder / "wandb" / "id"
        more = {"id": id_file.read_text(encoding="utf-8"), "resume": "allow"} if id_file.is_file() else {}
        name = f"{slug(config.prompt)}/{config.label}"
        with _refusal_named(wandb):
            options = {"project": "gsdistill", "name": name, "dir": str(folder), "reinit": "finish_previous"}
            self._run: Any = wandb.init(config=to_dict(config), **options, **more)
        write_text(id_file, self._run.id)

    def on_step(self, step: Step, run: Distiller) -> None:
        """Send what is due."""
        record: dict[str, Any] = _figures(self._watch)
        if step.number % self._every == 0:
            record["views"] = [self._wandb.Image(image) for image in step.images.clamp(0, 1).cpu().numpy()]
        if record:
            self._run.log(record, step=step.number)

    def on_end(self, run: Distiller) -> None:
        """Wait until all is sent. A run that was stopped goes on under the same id later."""
        self._run.finish()


LOGS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def check_logs(config: RunConfig) -> None:
    """Refuse a log that cannot be used. If W&B has no key yet, it asks for one here, on a terminal.

    Raises:
        NotInstalled: its package is missing. UserError: W&B has no key, or refuses its own settings.
    """
    for name in config.logs:
        require("logs", f"logs {name}", name)
    if "wandb" in config.logs:
        wandb = import_module("wandb")
        with _refusal_named(wandb):
            if wandb.setup().settings.mode not in ("offline", "dryrun", "disabled"):
                wandb.login(verify=False)


@contextmanager
def _refusal_named(wandb: Any) -> Iterator[None]:
    """Turn what W&B raises into one line. Raises UserError."""
    try:
        yield
    except (wandb.Error, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"logs = wandb: {reason.rstrip('.')}; WANDB_MODE=offline needs no account") from error


def _figures(watch: Watch) -> dict[str, float]:
    """The figures of the step, empty if it is not one to be logged; those that are not finite are left out."""
    record = watch.record or {}
    return {name: float(value) for name, value in record.items() if name != "step" and value is not None}
