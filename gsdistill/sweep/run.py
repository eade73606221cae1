"""Carry out a sweep: what is done is kept, what was interrupted goes on, what another process does is left to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from gsdistill.core import device
from gsdistill.core.structs import to_device
from gsdistill.disk.lock import Claim
from gsdistill.disk.write import check_folder, write_json
from gsdistill.evaluation.figures import JUDGE
from gsdistill.evaluation.references import of_prompt
from gsdistill.evaluation.truth import evaluate
from gsdistill.evaluation.without_truth import figures_without_truth
from gsdistill.generate import run
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.base import Prior
from gsdistill.prior.loading import group_of, load_prior
from gsdistill.run.config import RunConfig
from gsdistill.run.measure import keep_figures
from gsdistill.scene.read import read_splat
from gsdistill.sweep.plan import SweepRun, equal_evaluations, equal_steps
from gsdistill.sweep.settings import SweepSettings, shown
from gsdistill.training import checkpoint
from gsdistill.training.distiller import Diverged

__all__ = ["carry_out"]


def carry_out(settings: SweepSettings, console: Console) -> None:
    """Do what is left of a sweep.

    Raises:
        UserError: a prompt that is not of the prior's world, an unknown prior, and the like, before the first run.
        KeyboardInterrupt: after Ctrl-C, once the step is done and all is saved.
    """
    runs = equal_steps(settings)
    check_folder(settings.output)
    group_of(runs[0].config.prior)  # refuses what can be no prior
    worker = _Worker(console)
    try:
        worker.work(runs if settings.equal != "evaluations" else runs[: len(settings.methods)])
        if settings.equal != "steps":
            worker.work(equal_evaluations(settings))
    except KeyboardInterrupt:
        console.print("stopped; what is done is kept. The same command goes on from here")
        raise


class _Worker:
    """Does runs one after the other with one prior, which is loaded when the first one needs it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._loaded: Prior | None = None
        self._used: ModelSettings | None = None

    def work(self, runs: Sequence[SweepRun]) -> None:
        """Settle every run that is not settled yet and that no other process has in hand."""
        for place, one in enumerate(runs, start=1):
            if one.settled:
                continue
            with Claim(one.folder.with_name(f"{one.folder.name}.lock")) as claim:
                if claim.take() and not one.settled:
                    began = time.perf_counter()
                    self._settle(one)
                    self._tell(one, f"{place}/{len(runs)}", time.perf_counter() - began)

    def _settle(self, one: SweepRun) -> None:
        """Generate, unless that is done, and evaluate."""
        if not one.finished:
            for name in ("evaluation.json", "failure.json"):
                (one.folder / name).unlink(missing_ok=True)
            goes_on = one.begun and bool(checkpoint.find(one.folder / "checkpoints"))
            config = replace(one.config, resume=goes_on, overwrite=not goes_on)
            try:
                run(config, Console(quiet=True), self._prior(config), extras=False)
            except Diverged as error:
                write_json(one.folder / "failure.json", {"error": str(error)})
                return
        config = one.config
        splat = to_device(read_splat(one.folder), device.choose(config.device))
        prior = self._prior(config) if one.asked else None
        true = evaluate(splat, of_prompt(config.prompt, one.world)) if one.world else {}
        judge = {JUDGE: config.prior} if one.asked else {}
        alone = figures_without_truth(splat, config.prompt, prior, config.prompts)
        keep_figures(one.folder, {**true, **alone, **judge})

    def _prior(self, config: RunConfig) -> Prior:
        """The prior of a run, which is that of the last one unless its settings differ."""
        if self._loaded is None or self._used != config.model:
            target = device.choose(config.device, self._say)
            device.prepare(target, config.deterministic)
            self._loaded, self._used = load_prior(config.prior, target, config.model, self._say), config.model
        return self._loaded

    def _tell(self, one: SweepRun, place: str, seconds: float) -> None:
        figures, config = one.figures, one.config
        found = f"failed: {one.failure}"
        if figures:
            told = f"IoU {figures['iou']:.3f}, {figures['name']}" if one.world else f"{figures['gaussians']} Gaussians"
            found = f"{told}, fronts {figures['fronts']}" if one.asked else told
        name = f"{config.prompt}, {shown(one.method)}, seed {config.seed}, {config.iterations} steps"
        self._say(f"[{place}] {name}: {found}; {seconds:.1f} s")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
