"""The settings of a whole run, and where each comes from: the user, a quality, a recipe or the defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from gsdistill.core import device
from gsdistill.core.errors import ConfigError, did_you_mean
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import RenderOptions
from gsdistill.disk.paths import anchored, expanded, may_be_path
from gsdistill.disk.places import data_path, slug
from gsdistill.distillation.base import Distillation
from gsdistill.export.settings import RunExport
from gsdistill.models import catalogue
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.prompts import PromptSettings
from gsdistill.representation.gaussians import DENSIFIER_CLASS
from gsdistill.representation.optimizer import OptimSettings
from gsdistill.representation.regularizers import RegularizerSettings
from gsdistill.run import stages
from gsdistill.run.changes import completed, leaves
from gsdistill.run.read import CONFIG
from gsdistill.scene.cameras.base import CameraLaw
from gsdistill.scene.densify.base import Densification
from gsdistill.scene.init.base import Initialiser
from gsdistill.settings.config import defaults, from_dict, merge, name_of, named, setting_fields
from gsdistill.settings.registry import label_of, load, names
from gsdistill.settings.yaml import load_yaml
from gsdistill.training.backgrounds.base import Background
from gsdistill.training.finish.base import Finish
from gsdistill.training.finish.none import Without
from gsdistill.training.pictures import PictureSettings

__all__ = ["RunConfig", "fill_settings", "read_config", "resolve"]

METHOD: Any = named(partial(load, "gsdistill.distillation", kind="method"), "cds")
PRIOR = may_be_path(lambda: ("auto", *catalogue.known()))
Quality = Literal["draft", "normal", "fine"]
Log = Literal["tensorboard", "wandb"]
INIT_CLASS = partial(load, "gsdistill.scene.init", kind="initialiser")
INIT: Any = named(INIT_CLASS, "ball")
CAMERAS: Any = named(partial(load, "gsdistill.scene.cameras", kind="law of cameras"), "orbit")
DENSIFY: Any = named(DENSIFIER_CLASS, "gradient")
REPRESENTATION_CLASS = partial(load, "gsdistill.representation", kind="representation")
REPRESENTATION = may_be_path(lambda: names("gsdistill.representation"))
BACKGROUND: Any = named(partial(load, "gsdistill.training.backgrounds", kind="background"), "mixed")
FINISH: Any = named(partial(load, "gsdistill.training.finish", kind="finish"), "none")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run: the same config on the same machine gives the same splat."""

    prompt: str  # What to make, in quotes, as in "a red torus".
    negative_prompt: str = ""  # what to keep away from
    method: Distillation = METHOD  # How to distil: a name of `gsdistill list methods`; each has its own flags.
    # The diffusion model: a name of `gsdistill list priors`, a diffusers folder, a checkpoint in one file, a hub id, or
    # a class of your own as file.py:Class.
    prior: str = field(default="auto", metadata=PRIOR)
    init: Initialiser = INIT  # What to start from: a name of `gsdistill list inits`; each has its own flags.
    # What is optimised, made from that start: a name of `gsdistill list representations`, or a class of your own.
    representation: str = field(default="gaussians", metadata=REPRESENTATION)
    # Optimise so many scenes by turns: a step improves one of them. The LoRA of VSD learns from all.
    particles: int = bounded(1, low=1)
    init_prompt: str | None = None  # what an initialiser that reads one is told; none: the prompt
    # How much work to put in: draft to try a prompt in a third of the time, fine for a sharper splat in twice.
    quality: Quality = "normal"
    # What follows the method in the last steps: none, or a name of `gsdistill list finishes`; each has its own flags.
    finish: Finish = FINISH
    seed: int = bounded(0, low=0, high=2**32 - 1)  # Another seed gives another splat, the same one the same again.
    iterations: int = bounded(300, low=1)  # Make so many steps, those of all stages and of the finish.
    # the settings of each stage that differ from the run's, and its iterations, a share of the run's; only in a config
    stages: tuple[Mapping[str, Any], ...] = field(default=(), metadata={"typed": False})
    views: int = bounded(4, low=1)  # Draw so many views in a step.
    resolution: int | None = bounded(None, low=8, high=4096)  # Pixels of a training view; none: the prior's own.
    # What is behind the training views: a name of `gsdistill list backgrounds`; each has its own flags.
    background: Background = BACKGROUND
    device: str = "auto"  # Compute on auto, cpu, or a GPU by its name in torch; auto: a GPU where there is one.
    deterministic: bool = False  # the same bits in every process of this machine, at the price of speed
    recipe: bool = True  # start from the settings that fit the prior, a config of its card
    log_every: int = bounded(10, low=1)  # steps between records in metrics.jsonl
    preview_every: int = bounded(100, low=1)  # steps between preview pictures
    logs: tuple[Log, ...] = ()  # also tell tensorboard, wandb or both, each of which is to be installed
    snapshots: int = bounded(10, low=0)  # splats kept on the way, at equal steps, to look at with `gsdistill view`
    # seconds between checkpoints, more where they would take over 2 % of the time; 0: one after every step
    checkpoint_every: float = bounded(30.0, low=0)
    # Write to this folder; none: outputs/<prompt>/<method>-<finish>-seed<seed>, without a finish that is none.
    output: Path | None = None
    resume: bool = False  # Go on with the run in the output folder that was interrupted.
    accept_changes: bool = False  # go on with other settings than those of the checkpoint
    overwrite: bool = False  # Replace an earlier run in the output folder.
    prompts: PromptSettings = field(default_factory=PromptSettings)
    export: RunExport = field(default_factory=RunExport)
    model: ModelSettings = field(default_factory=ModelSettings)
    # How the cameras of a step are drawn: a name of `gsdistill list cameras`; each has its own flags.
    cameras: CameraLaw = CAMERAS
    pictures: PictureSettings = field(default_factory=PictureSettings)
    # How the number of Gaussians changes: a name of `gsdistill list densifiers`; each has its own flags.
    densify: Densification = DENSIFY
    renderer: RenderOptions = field(default_factory=RenderOptions)
    optim: OptimSettings = field(default_factory=OptimSettings)
    regularizers: RegularizerSettings = field(default_factory=RegularizerSettings)

    def __post_init__(self) -> None:
        if isinstance(self.prompt, str) and not self.prompt.strip():
            raise ConfigError("no prompt; say what to make, as in --prompt 'a red torus'")
        if self.resume and self.overwrite:
            raise ConfigError("resume and overwrite exclude each other: go on with the earlier run, or replace it")
        if self.accept_changes and not self.resume:
            raise ConfigError("--accept-changes needs --resume: without it all settings are new")
        if isinstance(self.particles, int) and isinstance(self.iterations, int) and self.particles > self.iterations:
            raise ConfigError(f"particles = {self.particles}: each needs a step, and iterations = {self.iterations}")
        REPRESENTATION_CLASS(self.representation)  # raises where there is none of that name
        if self.stages and isinstance(self.method, Distillation) and all(isinstance(s, Mapping) for s in self.stages):
            object.__setattr__(self, "stages", stages.checked_overrides(self))

    @property
    def parts(self) -> tuple[RunConfig, ...]:
        """The settings of each stage, in order, as those of a run of this stage alone; this object if there is one."""
        return stages.stage_configs(self)

    @property
    def label(self) -> str:
        """The method, the finish if there is one, and the seed: the name of the run's folder, as ``cds-seed0``."""
        finish = [] if isinstance(self.finish, Without) else [name_of(self.finish)]
        return "-".join([slug(label_of(name_of(self.method))), *finish, f"seed{self.seed}"])

    @property
    def folder(self) -> Path:
        """The folder of the run: ``output``, or ``outputs/<prompt>/<label>``."""
        return self.output or Path("outputs") / slug(self.prompt) / self.label


@dataclass(frozen=True)
class Choice:
    """The settings that decide which recipe and quality apply."""

    prior: str = field(default="auto", metadata=PRIOR)
    device: str = "auto"
    quality: Quality = "normal"


def resolve(given: Mapping[str, Any], say: Callable[[str], None] = lambda line: None) -> RunConfig:
    """Return the settings of the run that ``given`` describes, completed by :func:`fill_settings`, with absolute paths.

    ``say`` gets the lines that :func:`fill_settings` has for the user.

    Raises:
        ConfigError: an unknown setting, a wrong type, a value out of range, or no prompt.
    """
    return anchored(from_dict(RunConfig, {"prompt": "", **fill_settings(given, say)}))


def fill_settings(given: Mapping[str, Any], say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Return all settings of a run: ``given`` over the quality, over the recipe of method and prior, over the defaults.

    The prior ``auto`` is replaced by the one that is chosen for this machine. ``say`` gets a line for the user: on that
    choice, on a GPU that the device ``auto`` cannot use, and on settings of the quality that ``given`` overrides.

    Raises:
        ConfigError: the device, the quality or a class is unknown, or the device cannot be used.
    """
    given = stages.fill_from_stages(given)
    basis = merge(defaults(RunConfig), given)
    choice = from_dict(Choice, {field: basis[field] for field in ("prior", "device", "quality")})
    prior, reason = catalogue.choose_prior(choice.prior, device.choose(choice.device, say))
    if reason:
        say(reason)
    method = basis["method"].get("name") if isinstance(basis["method"], Mapping) else None
    recipe = catalogue.recipe(prior, method) if isinstance(method, str) and basis["recipe"] else None
    # a published config has "recipe: false", for use by --config; as the recipe itself it must not switch recipes off
    settings = {**stages.fill_from_stages(read_config(recipe)), "recipe": True} if recipe else {}
    under = merge(defaults(RunConfig), _with_densifier(settings, given.get("densify")))
    table = _quality(prior, method, choice.quality, merge(under, {"init": given["init"]} if "init" in given else {}))
    basis = stages.over(stages.over(under, table), given)
    final = dict(leaves(basis))
    if lost := [f"{name} = {final[name]}" for name, value in leaves(table) if final.get(name, value) != value]:
        say(f"quality: {choice.quality}, but {', '.join(lost)}, as given")
    return {**basis, "prior": prior}


def _with_densifier(recipe: Mapping[str, Any], given: Any) -> Mapping[str, Any]:
    """The recipe with the densifier that ``given`` names, if any; of the recipe's settings, those that it has too."""
    name, own = given.get("name") if isinstance(given, Mapping) else given, recipe.get("densify")
    if not isinstance(name, str) or not isinstance(own, Mapping):
        return recipe
    known = setting_fields(DENSIFIER_CLASS(name))
    return {**recipe, "densify": {**{key: value for key, value in own.items() if key in known}, "name": name}}


def _quality(prior: str, method: Any, name: str, under: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the quality ``name``. Of those for the initialiser, only what the one in ``under`` has."""
    table = catalogue.quality(prior, str(method), name)
    if not table:
        return {}
    init = under["init"]["name"] if isinstance(under["init"], Mapping) else under["init"]
    known = setting_fields(INIT_CLASS(init)) if isinstance(init, str) else {}
    counts = {key: value for key, value in table.get("init", {}).items() if key in known}
    settings = {key: value for key, value in table.items() if key not in ("steps", "init")}
    steps = {"iterations": max(1, round(table["steps"] * under["iterations"]))} if "steps" in table else {}
    return {**settings, **steps, **({"init": {"name": init, **counts}} if counts else {})}


def read_config(name: str) -> dict[str, Any]:
    """Read the settings of a config, given as a YAML file, the folder of an earlier run, or the name of a shipped one.

    Raises:
        ConfigError: there is no such file and no such name.
        BadFile: the file is no YAML mapping.
    """
    path, shipped = Path(expanded(name, "config")), data_path("configs")
    path = path / CONFIG if path.is_dir() else path
    if path.is_file() or path.suffix in (".yaml", ".yml"):
        settings = load_yaml(path)
        # only a run's own config has "resume": it holds all settings of its version, and newer ones get old values
        return completed(settings) if "resume" in settings else settings
    known = sorted(file.stem for file in shipped.glob("*.yaml"))
    if name not in known:
        available = ", ".join([*known, "or the path of a YAML file"])
        raise ConfigError(f"unknown config '{name}'.{did_you_mean(name, known)} Available: {available}")
    return load_yaml(shipped / f"{name}.yaml")
