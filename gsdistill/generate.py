"""A whole run: the one straight function that knows every stage.

config -> prior -> scene -> renderer -> distillation -> training -> export
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from rich.console import Console
from rich.text import Text

from gsdistill.core import device
from gsdistill.core.errors import ConfigError, OutOfMemory, tell
from gsdistill.core.structs import Gaussians, RenderOptions
from gsdistill.disk.paths import anchored, paths_in
from gsdistill.export.base import Writer
from gsdistill.export.formats import run_writers
from gsdistill.models.catalogue import choose_prior
from gsdistill.pages.report import write_report
from gsdistill.prior.base import Prior
from gsdistill.prior.loading import group_of, load_prior
from gsdistill.prior.prompts import encode_with_endings
from gsdistill.representation.gaussians import SceneSettings
from gsdistill.representation.particles import made_of
from gsdistill.run import stages
from gsdistill.run.changes import check_places, command, completed
from gsdistill.run.config import REPRESENTATION_CLASS, RunConfig
from gsdistill.run.folder import RunFolder
from gsdistill.run.keeper import Keeper
from gsdistill.run.logs import LOGS, check_logs
from gsdistill.run.read import PARTICLES
from gsdistill.run.watch import Halt, Interrupt, StepBar, Watch, print_summary
from gsdistill.scene.clouds import describe
from gsdistill.scene.densify.base import without_haze
from gsdistill.settings.config import defaults, from_dict, name_of, to_dict, validate
from gsdistill.training.distiller import Distiller, Stage
from gsdistill.training.listener import Listener
from gsdistill.training.views import ViewSettings, check_cameras, check_groups

Beginning: TypeAlias = tuple[Gaussians, torch.Generator]  # what a run starts from, and its random numbers after it

__all__ = ["check_without_prior", "checked_folder", "prepared", "run"]


def run(
    config: RunConfig,
    console: Console,
    prior: Prior | None = None,
    extras: bool = True,
    listeners: Sequence[Listener] = (),
) -> Path:
    """Generate one splat, from the config to the files; returns the run's folder.

    ``prior`` is the one that the config names, where the caller has it loaded already. Without ``extras`` there is no
    turntable and no report. ``listeners`` hear of every step, and of the end, before anything of it is written, so that
    a step in which one of them stops the run is kept as the last one.

    Raises:
        UserError: of any kind, before the work where it can be known.
        Stopped: after Ctrl-C or another signal that asks for the end, once all is saved.
    """

    def say(line: str) -> None:
        console.print(Text(line), soft_wrap=True)

    def insist(line: str) -> None:
        try:
            say(line)
        except BrokenPipeError:  # who read it has left
            tell(line)

    config = anchored(validate(config))
    target = device.choose(config.device)
    name, reason = choose_prior(config.prior, target)
    if reason:
        say(reason)
    config = replace(config, prior=name)
    device.prepare(target, config.deterministic)
    device.forget_peak(target)
    folder, done = checked_folder(config)
    if done is None:
        say(f"the run in {folder.path} is finished; nothing is left to do")
        return folder.path
    writers = run_writers(config.export)
    check_logs(config)
    with _shortage_named(config):
        begun = check_without_prior(config, target) if prior is None else None
        prior = prior or load_prior(config.prior, target, config.model, say)
        initial, distiller = prepared(config, prior, target, begun)
    watch = Watch(initial, console, config.log_every)
    with _shortage_named(config), Interrupt(console) as interrupt, folder.claimed(config.resume, config.overwrite):
        if config.resume:
            for line in folder.restore(distiller, config.accept_changes):
                say(line)
        else:
            folder.begin(distiller)
        with folder.rescuing(distiller, insist):
            if not distiller.done:
                folder.picture_start(initial, prior.camera_range)
                if config.snapshots:
                    folder.snapshot(0, initial)
            console.print(f"prior {prior.name}, method {name_of(config.method)}, {target}", markup=False)
            console.print(f"start {name_of(config.init)}: {describe(initial)}", markup=False)
            for line in stages.lines(config):
                say(line)
            if distiller.done:
                say(f"going on from step {distiller.done}")
            keeper, results = Keeper(folder, config, watch), _Results(config, folder, watch, console, writers, extras)
            logs = [LOGS[name](folder.path, config, watch, distiller.done) for name in config.logs]
            with StepBar(console, distiller.iterations, distiller.done) as bar:
                distiller.run((Halt(interrupt), *listeners, bar, watch, keeper, results, *logs))
            if distiller.done < config.iterations:
                raise interrupt.stopped
    return folder.path


def checked_folder(config: RunConfig) -> tuple[RunFolder, int | None]:
    """The folder of a run that may begin or go on there, and the steps it has made; None where it is finished.

    Raises:
        UserError: the folder is taken, cannot serve, or holds a run that cannot go on so.
    """
    folder = RunFolder(config.folder, to_dict(replace(config, resume=False, accept_changes=False, overwrite=False)))
    if config.resume and folder.is_finished():
        return folder, None
    folder.check(config.resume, config.overwrite)
    if not config.resume:
        return folder, 0
    check_places(config, folder.path)
    saved, _, changes = folder.last(config.accept_changes)
    if changes:
        _check_stage(config, from_dict(RunConfig, completed(saved.settings)), saved.counters.done)
    return folder, saved.counters.done


def _check_stage(config: RunConfig, before: RunConfig, done: int) -> None:
    """Refuse changes by which a run would go on in another stage than its checkpoint is of. Raises ConfigError."""
    was, now = stages.stage_index(before, done), stages.stage_index(config, done)
    if was != now:
        raise ConfigError(
            f"after {done} steps the run is in stage {was + 1} of {len(before.parts)}, and with these settings it "
            f"would be in stage {now + 1} of {len(config.parts)}; {command(config.folder)} takes those of the run"
        )


def check_without_prior(config: RunConfig, target: torch.device) -> Beginning | None:
    """Refuse what needs no weights to be seen wrong: groups of views, and a file to start from, which is returned read.

    Raises:
        UserError: as :func:`check_groups` and the initialiser do.
    """
    for part in config.parts:
        check_groups(part.views, part.cameras, config.prior, group_of(config.prior))
    of_a_file = any(isinstance(value, Path) for _, value in paths_in(config.init))
    return _begin(config, target) if of_a_file else None


def _begin(config: RunConfig, target: torch.device) -> Beginning:
    generator = torch.Generator().manual_seed(config.seed)
    return _start(config, generator, target), generator


def _start(config: RunConfig, generator: torch.Generator, target: torch.device) -> Gaussians:
    """What a scene starts from, with the run's options of the renderer."""
    initial = config.init.create(config.init_prompt or config.prompt, generator, target)
    if initial.options not in (RenderOptions(), config.renderer):
        tell(f"the start was made with {initial.options} of the renderer; the run draws it with {config.renderer}")
    return replace(initial, options=config.renderer)


@contextmanager
def _shortage_named(config: RunConfig) -> Iterator[None]:
    """Where memory is short, name the settings that need it. Raises OutOfMemory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not device.out_of_memory(error):
            raise
        largest = max(config.parts, key=lambda part: part.views * (part.resolution or 512) ** 2)
        resolution = "the prior's" if largest.resolution is None else largest.resolution
        raise OutOfMemory(
            f"out of memory on {device.choose(config.device)}; lower views (now {largest.views}), resolution (now "
            f"{resolution}) or densify.budget (now {largest.densify.budget}); a downloaded model takes less with "
            "model.precision float16, model.recompute_encoder, or a tiny autoencoder as model.vae"
        ) from error


class _Results(Listener):
    """Writes all that shows the splat as it is at the end, and where it is finished what tells of the run."""

    def __init__(
        self, config: RunConfig, folder: RunFolder, watch: Watch, console: Console, writers: Mapping[str, Writer],
        extras: bool,
    ) -> None:  # fmt: skip
        self._config, self._folder, self._watch, self._console = config, folder, watch, console
        self._writers, self._extras = writers, extras

    def on_end(self, run: Distiller) -> None:
        """Write the files; the report is the last of them."""
        config, folder = self._config, self._folder
        finished = run.done >= run.iterations
        gaussians = without_haze(run.representation.splat(), config.parts[-1].densify)
        for line in folder.splats(gaussians, self._writers):
            self._console.print(Text(line), soft_wrap=True)
        folder.pictures(gaussians, run.prior.camera_range, video=self._extras and finished)
        for number, other in enumerate(run.representation.splats()[1:], start=2):
            place = RunFolder(folder.path / PARTICLES / str(number), {})
            other = without_haze(other, config.parts[-1].densify)
            place.splats(other, self._writers)
            place.pictures(other, run.prior.camera_range, video=False)
        summary = self._summed_up(run, gaussians) if finished else {}
        if self._extras:
            write_report(folder.path, defaults(RunConfig), evaluate=finished)
        if finished:
            print_summary(self._console, folder.path, summary)
            folder.close()

    def _summed_up(self, run: Distiller, gaussians: Gaussians) -> dict[str, Any]:
        health, alarms = self._watch.look(run, gaussians)
        facts = {
            "prompt": self._config.prompt,
            "method": name_of(self._config.method),
            "finish": name_of(self._config.finish),
            "stages": [
                {
                    "method": name_of(stage.method),
                    "iterations": stage.iterations,
                    "views": stage.views.count,
                    "resolution": stage.views.resolution,
                }
                for stage in run.stages
            ],
            "prior": self._config.prior,
            "seed": self._config.seed,
            "gaussians": len(gaussians),
            "health": asdict(health),
            "alarms": alarms,
        }
        return self._folder.finish(run, facts)


def prepared(
    config: RunConfig, prior: Prior, target: torch.device, begun: Beginning | None = None
) -> tuple[Gaussians, Distiller]:
    """What a run starts from, and the object that makes its steps.

    ``begun`` is what :func:`check_without_prior` has read.

    Raises:
        ConfigError: the prior cannot serve the settings. Other UserErrors: of the prior and the initialiser.
    """
    first, *then = [_stage(part, prior) for part in config.parts]
    endings = _endings(config.parts)
    texts = config.prompt, config.negative_prompt, config.prompts
    text = encode_with_endings(prior.encode_text, *texts, endings)
    initial, generator = begun or _begin(config, target)
    starts = [initial, *(_start(config, generator, target) for _ in range(1, config.particles))]
    scene = made_of(REPRESENTATION_CLASS(config.representation), starts, first.settings, first.iterations, target)
    run = Distiller(scene, prior, first.method, text, first.views, first.iterations, generator, then=then)
    return initial, run


def _endings(parts: Sequence[RunConfig]) -> dict[str, str]:
    """What the methods of all stages put behind the prompt; raises ConfigError where two differ in one text."""
    every: dict[str, str] = {}
    for part in parts:
        for name, ending in part.method.endings().items():
            if every.setdefault(name, ending) != ending:
                raise ConfigError(f"method.{name}: stages of one run have one text, not '{every[name]}' and '{ending}'")
    return every


def _stage(part: RunConfig, prior: Prior) -> Stage:
    check_cameras(part.cameras, prior)
    scene = SceneSettings(part.renderer, part.optim, part.regularizers, part.densify)
    return Stage(part.method, view_settings(part, prior), part.iterations, scene)


def view_settings(config: RunConfig, prior: Prior) -> ViewSettings:
    """What each step looks at, with what the prior decides filled in.

    Raises:
        ConfigError: the views do not make whole groups, or not those that the prior needs.
    """
    group = check_groups(config.views, config.cameras, prior.name, prior.view_group)
    return ViewSettings(
        count=config.views,
        resolution=config.resolution or prior.image_size,
        background=config.background,
        cameras=replace(config.cameras, group=group),
        pictures=config.pictures,
    )
