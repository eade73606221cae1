"""TensorBoard and Weights & Biases as listeners of a run: figures as often as metrics.jsonl has them, and previews.

Both write into the run's folder. W&B follows its own settings, of which WANDB_MODE=offline sends nothing.
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
    """Event files in the folder ``tensorboard`` of the run's."""

    def __init__(self, folder: Path, config: RunConfig, watch: Watch, done: int) -> None:
        """Go on after ``done`` steps; events of later ones count no more. ``watch`` is told of a step before."""
        from torch.utils.tensorboard import SummaryWriter

        self._watch, self._every = watch, config.preview_every
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1 if done else None)

    def on_step(self, step: Step, run: Distiller) -> None:
        """Write what is due, on the disk at once, for a run may be killed."""
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
    """A run of the W&B project ``gsdistill``; the folder ``wandb`` of the run's keeps its id, by which it goes on."""

    def __init__(self, folder: Path, config: RunConfig, watch: Watch, done: int) -> None:
        """As :class:`TensorBoard`. Raises UserError where W&B refuses."""
        wandb = import_module("wandb")
        self._wandb, self._watch, self._every = wandb, watch, config.preview_every
        id_file = folder / "wandb" / "id"
        more = {"id": id_file.read_text(encoding="utf-8"), "resume": "allow"} if id_file.is_file() else {}
        name = f"{slug(config.prompt)}/{config.label}"
        with _refusal_named(wandb):
            self._run: Any = wandb.init(
                project="gsdistill",
                name=name,
                dir=str(folder),
                config=to_dict(config),
                reinit="finish_previous",
                **more,
            )
        write_text(id_file, self._run.id)

    def on_step(self, step: Step, run: Distiller) -> None:
        """Send what is due."""
        record: dict[str, Any] = _figures(self._watch)
        if step.number % self._every == 0:
            record["views"] = [self._wandb.Image(image) for image in step.images.clamp(0, 1).cpu().numpy()]
        if record:
            self._run.log(record, step=step.number)

    def on_end(self, run: Distiller) -> None:
        """Wait until all is sent; one that was stopped goes on later."""
        self._run.finish()


LOGS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def check_logs(config: RunConfig) -> None:
    """Refuse a log that cannot be begun; W&B asks for its key here, where there is a terminal and none is kept.

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
    """Say in one line what W&B refuses. Raises UserError."""
    try:
        yield
    except (wandb.Error, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"logs = wandb: {reason.rstrip('.')}; WANDB_MODE=offline needs no account") from error


def _figures(watch: Watch) -> dict[str, float]:
    """The figures of the step, where it is one to be written down; what is not finite is left out."""
    record = watch.record or {}
    return {name: float(value) for name, value in record.items() if name != "step" and value is not None}
