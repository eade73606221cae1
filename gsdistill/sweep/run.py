"""Carry out a sweep: skip finished runs, resume interrupted ones, and leave alone what another process works on."""

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
from gsdistill.evaluation.references import truth_of_prompt
from gsdistill.evaluation.truth import evaluate
from gsdistill.evaluation.without_truth import figures_without_truth
from gsdistill.generate import checked_folder, prepared, run
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.base import Prior
from gsdistill.prior.loading import group_of, load_prior
from gsdistill.run.config import RunConfig
from gsdistill.run.folder import EVALUATION, FAILURE
from gsdistill.run.measure import keep_figures
from gsdistill.scene.read import read_splat
from gsdistill.sweep.plan import SweepRun, equal_evaluations, equal_steps, priced
from gsdistill.sweep.settings import SweepSettings, shown, steps_of
from gsdistill.training import checkpoint
from gsdistill.training.distiller import Distiller, Diverged
from gsdistill.training.listener import Listener

__all__ = ["carry_out"]


def carry_out(settings: SweepSettings, console: Console) -> None:
    """Carry out the runs of a sweep that are left.

    Raises:
        UserError: before the first run, if a prompt is not of the prior's world, the prior is unknown, and the like.
        KeyboardInterrupt: after Ctrl-C, once the step is finished and everything is saved.
    """
    runs = equal_steps(settings)
    check_folder(settings.output)
    group_of(runs[0].config.prior)  # refuses what cannot be a prior
    worker = _Worker(console)
    try:
        worker.work(priced(settings))
        if settings.equal != "steps":
            worker.work(equal_evaluations(settings))
    except KeyboardInterrupt:
        console.print("stopped; finished steps are kept. The same command goes on from here")
        raise


class _Heir(Listener):
    """At the end of a run, writes a checkpoint of another run, which has the same steps and then a stage more."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config

    def on_end(self, run: Distiller) -> None:
        """Bring the other run to the state of this one, let its next stage begin, and save it."""
        if run.done < run.iterations:
            return
        _, heir = prepared(self._config, run.prior, run.representation.device)
        heir.seek(run.done - 1)  # into the stage that ends here, whose state it takes over
        heir.representation.restore(run.representation.state())
        heir.generator.set_state(run.generator.get_state())
        heir.method_state = run.method_state
        if heir.learned and run.learned:  # the same stage has the same
            heir.learned.restore(run.learned.state())
        heir.skipped, heir.evaluations, heir.forgiven = run.skipped, run.evaluations, run.forgiven
        run.clock.settle(wait=True)
        heir.clock.seconds.update(run.clock.seconds)
        heir.seek(run.done)
        folder, _ = checked_folder(replace(self._config, overwrite=True))
        with folder.claimed(resume=False, overwrite=True):
            folder.begin(heir)


class _Worker:
    """Carries out runs one after the other with one prior, which the first run loads."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._loaded: tuple[ModelSettings, Prior] | None = None

    def work(self, runs: Sequence[SweepRun]) -> None:
        """Settle every run that is not settled yet and that no other process works on, nor on what it goes on from."""
        for place, one in enumerate(runs, start=1):
            if one.settled or (one.alone and not one.alone.settled):
                continue
            follower = next((other for other in runs if other.alone is one), None)
            with Claim(one.folder.with_name(f"{one.folder.name}.lock")) as claim:
                if claim.take() and not one.settled:
                    began = time.perf_counter()
                    self._settle(one, follower)
                    self._report(one, f"{place}/{len(runs)}", time.perf_counter() - began)

    def _settle(self, one: SweepRun, follower: SweepRun | None) -> None:
        """Generate the splat if it is missing, and measure it. ``follower`` is the run that goes on from its end."""
        config = one.config
        if not one.finished:
            for name in (EVALUATION, FAILURE):
                (one.folder / name).unlink(missing_ok=True)
            resume = one.begun and bool(checkpoint.find(one.folder / "checkpoints"))
            again = replace(config, resume=resume, overwrite=not resume)
            try:
                heirs = [_Heir(follower.config)] if follower and not follower.begun else []
                run(again, Console(quiet=True), self._load_prior(config), extras=False, listeners=heirs)
            except Diverged as error:
                write_json(one.folder / FAILURE, {"error": str(error)})
                return
        splat = to_device(read_splat(one.folder), device.choose(config.device))
        prior = self._load_prior(config) if one.by_prior else None
        against_truth = evaluate(splat, truth_of_prompt(config.prompt, one.world)) if one.world else {}
        judge = {JUDGE: config.prior} if one.by_prior else {}
        alone = figures_without_truth(splat, config.prompt, prior, config.prompts)
        keep_figures(one.folder, {**against_truth, **alone, **judge})

    def _load_prior(self, config: RunConfig) -> Prior:
        """Return the prior of a run; it is loaded by the first run, and again by one with other model settings."""
        if self._loaded is None or self._loaded[0] != config.model:
            target = device.choose(config.device, self._say)
            device.prepare(target, config.deterministic)
            self._loaded = config.model, load_prior(config.prior, target, config.model, self._say)
        return self._loaded[1]

    def _report(self, one: SweepRun, place: str, seconds: float) -> None:
        figures, config = one.figures, one.config
        if not figures:
            results = [f"failed: {one.failure}"]
        elif one.world:
            results = [f"IoU {figures['iou']:.3f}", figures["name"]]
        else:
            results = [f"{figures['gaussians']} Gaussians"]
        if figures and one.by_prior:
            results.append(f"fronts {figures['fronts']}")
        steps = steps_of(config.iterations, one.finish_steps)
        name = f"{config.prompt}, {shown(one.method)}, seed {config.seed}, {steps} steps"
        self._say(f"[{place}] {name}: {', '.join(results)}; {seconds:.1f} s")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
