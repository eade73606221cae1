"""A whole run: its settings, composed of those of its stages, and the one straight function that knows every stage.

config -> prior -> scene -> renderer -> distillation -> training -> export
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from gsdistill import device
from gsdistill.config import bounded, defaults, from_dict, load_yaml, merge, name_of, named, to_dict
from gsdistill.distillation.base import Distillation
from gsdistill.errors import BadFile, ConfigError, did_you_mean
from gsdistill.export.formats import run_writers
from gsdistill.export.settings import RunExport
from gsdistill.files import data_path, slug
from gsdistill.pages.report import write_report
from gsdistill.prior import cards
from gsdistill.prior.base import Prior
from gsdistill.prior.loading import load_prior
from gsdistill.prior.pretrained import ModelSettings
from gsdistill.prior.prompts import PromptSettings
from gsdistill.progress import Interrupt, StepBar, print_summary
from gsdistill.registry import load
from gsdistill.renderer.base import RenderOptions
from gsdistill.runfolder import RunFolder
from gsdistill.scene.cameras import CameraSettings
from gsdistill.scene.clouds import describe
from gsdistill.scene.densify import DensifySettings, without_haze
from gsdistill.scene.init.base import Initialiser
from gsdistill.training.loop import Background, OptimSettings, Plan, StepRecord, start, steps
from gsdistill.training.regularizers import RegularizerSettings

if TYPE_CHECKING:
    from gsdistill.viewer.live import LiveView

__all__ = ["RunConfig", "fill", "read_config", "read_prompt", "resolve", "run"]

METHOD: Any = named(partial(load, "gsdistill.distillation", kind="method"), "cds")
INIT: Any = named(partial(load, "gsdistill.scene.init", kind="initialiser"), "ball")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run: the same config on the same machine gives the same splat."""

    prompt: str  # what to make, as in "a red torus"
    negative_prompt: str = ""  # what to keep away from
    method: Distillation = METHOD  # how to distil: a name of `gsdistill list methods`
    prior: str = "auto"  # a diffusion model: a name of `gsdistill list priors`, or a diffusers folder
    init: Initialiser = INIT  # where to start: a name of `gsdistill list inits`
    init_prompt: str | None = None  # what an initialiser that reads one is told; none: the prompt
    seed: int = bounded(0, low=0, high=2**32 - 1)  # of every random number in the run
    iterations: int = bounded(300, low=1)  # steps of the optimiser
    views: int = bounded(4, low=1)  # cameras per step
    resolution: int | None = bounded(None, low=8, high=4096)  # pixels of a training view; none: the prior's own
    background: Background = "mixed"  # behind the training views; mixed: half mid grey, half any colour
    device: str = "auto"  # auto, cpu, or an NVIDIA GPU by its name in torch; auto: a GPU where there is one
    recipe: bool = True  # start from the settings that fit the prior, a config of its card
    log_every: int = bounded(10, low=1)  # steps between records in metrics.jsonl
    preview_every: int = bounded(100, low=1)  # steps between preview pictures
    snapshots: int = bounded(10, low=0)  # splats kept on the way, at equal steps, to look at with `gsdistill view`
    checkpoint_every: float = bounded(30.0, low=0)  # seconds between checkpoints
    output: Path | None = None  # folder of the run; none: outputs/<prompt>/<method>-seed<seed>
    resume: bool = False  # go on from the checkpoint in the output folder
    overwrite: bool = False  # replace an earlier run in the output folder
    prompts: PromptSettings = field(default_factory=PromptSettings)
    export: RunExport = field(default_factory=RunExport)
    model: ModelSettings = field(default_factory=ModelSettings)
    cameras: CameraSettings = field(default_factory=CameraSettings)
    densify: DensifySettings = field(default_factory=DensifySettings)
    renderer: RenderOptions = field(default_factory=RenderOptions)
    optim: OptimSettings = field(default_factory=OptimSettings)
    regularizers: RegularizerSettings = field(default_factory=RegularizerSettings)

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise ConfigError("no prompt; say what to make, as in --prompt 'a red torus'")
        if self.resume and self.overwrite:
            raise ConfigError("resume and overwrite exclude each other: go on with the earlier run, or replace it")

    @property
    def folder(self) -> Path:
        """The folder of the run: ``output``, or the one that the prompt, the method and the seed name."""
        return self.output or Path("outputs") / slug(self.prompt) / f"{name_of(self.method)}-seed{self.seed}"


@dataclass(frozen=True)
class Chosen:
    """What decides which defaults serve."""

    prior: str = "auto"
    device: str = "auto"


def resolve(given: Mapping[str, Any], say: Callable[[str], None] = lambda line: None) -> RunConfig:
    """Return the run that ``given`` describes; :func:`fill` completes what it leaves open.

    Raises:
        ConfigError: an unknown setting, a wrong type, a value out of range, or no prompt.
    """
    return from_dict(RunConfig, {"prompt": "", **fill(given, say)})


def fill(given: Mapping[str, Any], say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Return ``given`` over the recipe for its method and prior, if there is one, over the defaults.

    The prior ``auto`` becomes the name of the one that serves on this machine, and ``say`` is told why.
    """
    basis = merge(defaults(RunConfig), given)
    chosen = from_dict(Chosen, {"prior": basis["prior"], "device": basis["device"]})
    prior, reason = cards.choose(chosen.prior, device.choose(chosen.device))
    if reason:
        say(reason)
    method = basis["method"].get("name") if isinstance(basis["method"], Mapping) else None
    recipe = cards.recipe(prior, method) if isinstance(method, str) and basis["recipe"] else None
    if recipe:
        basis = merge(merge(defaults(RunConfig), read_config(recipe)), given)
    return {**basis, "prior": prior}


def read_config(name: str) -> dict[str, Any]:
    """Read the settings of a config: a YAML file, the folder of an earlier run, or the name of a shipped config.

    Raises:
        ConfigError: there is no such file and no such name.
        BadFile: the file is no YAML mapping.
    """
    path, shipped = Path(name), data_path("configs")
    if path.is_dir():
        return load_yaml(path / "config.yaml")
    if path.is_file() or path.suffix in (".yaml", ".yml"):
        return load_yaml(path)
    known = sorted(file.stem for file in shipped.glob("*.yaml"))
    if name not in known:
        available = ", ".join([*known, "or the path of a YAML file"])
        raise ConfigError(f"unknown config '{name}'.{did_you_mean(name, known)} Available: {available}")
    return load_yaml(shipped / f"{name}.yaml")


def read_prompt(path: Path | str) -> str:
    """The text of a file as one line.

    Raises:
        BadFile: it cannot be read, is not UTF-8, or holds no text.
    """
    try:
        text = " ".join(Path(path).read_text(encoding="utf-8-sig").split())
    except OSError as error:
        raise BadFile(f"the prompt file {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadFile(f"the prompt file {path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    if not text:
        raise BadFile(f"the prompt file {path} holds no text")
    return text


def run(
    config: RunConfig,
    console: Console,
    prior: Prior | None = None,
    extras: bool = True,
    live: LiveView | None = None,
) -> Path:
    """Generate one splat, from the config to the files; returns the run's folder.

    ``prior`` is the one that the config names, where the caller has it loaded already. Without ``extras`` there is no
    turntable and no report. ``live`` is an open page that shows the splat after every step.

    Raises:
        UserError: of any kind, before the work where it can be known.
        KeyboardInterrupt: after Ctrl-C, once all is saved.
    """
    target = device.choose(config.device)
    folder = RunFolder(config.folder, to_dict(replace(config, resume=False, overwrite=False)))
    folder.check(config.resume, config.overwrite)
    writers = run_writers(config.export)
    prior = prior or load_prior(config.prior, target, config.model)
    check_cameras(config.cameras, prior)
    plan = loop_plan(config, prior)
    text = prior.encode_text(config.prompt, config.negative_prompt, config.prompts)
    generator = torch.Generator().manual_seed(config.seed)
    initial = config.init.create(config.init_prompt or config.prompt, generator, target)
    optimisation = start(initial, config.method, prior, plan, config.densify, generator, target)
    if config.resume:
        folder.restore(optimisation)
    else:
        folder.begin()
        folder.picture_start(initial, prior.camera_range)
        if config.snapshots:
            folder.snapshot(0, initial)
    console.print(f"prior {prior.name}, method {name_of(config.method)}, {target}", markup=False)
    console.print(f"start {name_of(config.init)}: {describe(initial)}", markup=False)
    with Interrupt(console) as interrupt, StepBar(console, plan.iterations, optimisation.done) as bar:
        for record in steps(optimisation, config.method, prior, text, plan):
            stop = interrupt.asked
            bar.show(record)
            observe(record, config, folder, sum(optimisation.clock.seconds.values()), stop)
            if config.snapshots and (stop or record.step * config.snapshots % config.iterations < config.snapshots):
                folder.snapshot(record.step, without_haze(optimisation.gaussians(), config.densify))
            if live:
                live.show(optimisation.gaussians(), record)
            folder.save(optimisation, config.checkpoint_every)
            if stop:
                break
    folder.save(optimisation)
    gaussians = without_haze(optimisation.gaussians(), config.densify)
    folder.splats(gaussians, writers)
    if optimisation.done < plan.iterations:
        folder.pictures(gaussians, prior.camera_range, video=False)
        if extras:
            write_report(folder.path, defaults(RunConfig), evaluate=False)
        console.print(f"stopped at step {optimisation.done}; all is saved. Go on with the same command and --resume")
        raise KeyboardInterrupt
    folder.pictures(gaussians, prior.camera_range, video=extras)
    facts = {
        "prompt": config.prompt,
        "method": name_of(config.method),
        "prior": config.prior,
        "seed": config.seed,
        "gaussians": len(gaussians),
    }
    summary = folder.finish(optimisation, facts)
    if extras:
        write_report(folder.path, defaults(RunConfig))
    print_summary(console, folder.path, summary)
    return folder.path


def loop_plan(config: RunConfig, prior: Prior) -> Plan:
    """The loop's share of the settings, with what the prior decides filled in.

    Raises:
        ConfigError: the views do not make whole groups, or not those that the prior needs.
    """
    group = config.cameras.group or prior.view_group
    if prior.view_group not in (1, group):
        raise ConfigError(f"cameras.group = {group}: the prior {prior.name} sees {prior.view_group} views together")
    low, high = config.cameras.azimuth
    if prior.view_group > 1 and high - low != 360:
        raise ConfigError(
            f"cameras.azimuth = [{low:g}, {high:g}]: the prior {prior.name} sees {prior.view_group} views all around, "
            "which needs 360 degrees"
        )
    if config.views % group:
        raise ConfigError(f"views = {config.views} is no multiple of the {group} views of a group of cameras")
    return Plan(
        iterations=config.iterations,
        views=config.views,
        resolution=config.resolution or prior.image_size,
        background=config.background,
        cameras=replace(config.cameras, group=group),
        renderer=config.renderer,
        regularizers=config.regularizers,
        optim=config.optim,
    )


def observe(record: StepRecord, config: RunConfig, folder: RunFolder, seconds: float, last: bool) -> None:
    """Log the first, the last and every so many steps, and refresh the preview now and then."""
    if last or record.step == 1 or record.step % config.log_every == 0 or record.step == config.iterations:
        folder.log(record, seconds)
    if record.step % config.preview_every == 0:
        folder.preview(record)


def check_cameras(settings: CameraSettings, prior: Prior) -> None:
    """Refuse cameras that a camera-conditioned prior has never seen.

    Raises:
        ConfigError: a range leaves what the prior knows.
    """
    if prior.camera_range is None:
        return
    for name, (low, high) in prior.camera_range.ranges().items():
        given = getattr(settings, name)
        if given[0] < low or given[1] > high:
            raise ConfigError(
                f"cameras.{name} = {list(given)} leaves what the prior {prior.name} was trained on: {low:g} to {high:g}"
            )
