"""The listener that keeps a run in its folder, step by step."""

from __future__ import annotations

from gsdistill.run.config import RunConfig
from gsdistill.run.folder import RunFolder
from gsdistill.run.watch import Watch
from gsdistill.scene.densify.base import without_haze
from gsdistill.training.distiller import Distiller, Step
from gsdistill.training.listener import Listener

__all__ = ["Keeper"]


class Keeper(Listener):
    """Writes figures, previews, snapshots and checkpoints to the run's folder as often as the settings say."""

    def __init__(self, folder: RunFolder, config: RunConfig, watch: Watch) -> None:
        """``watch`` must hear of each step before this listener does."""
        self._folder, self._config, self._watch = folder, config, watch
        self._cut = config.parts[-1].densify

    def on_step(self, step: Step, run: Distiller) -> None:
        """Write what is due after the step; a checkpoint is always written after the last one."""
        folder, config = self._folder, self._config
        if self._watch.record:
            folder.log(self._watch.record)
        if step.number % config.preview_every == 0:
            folder.preview(step)
        if config.snapshots and (run.over or step.number * config.snapshots % config.iterations < config.snapshots):
            folder.snapshot(step.number, without_haze(run.representation.splat(), self._cut))
        folder.save(run, 0.0 if run.over else config.checkpoint_every)
