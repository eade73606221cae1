"""The front door of the library, which ``import gsdistill`` shows: a prompt in, an object to iterate out, and splats.

    run = distil("a red torus", "shapes", method="sds")
    for step in run: ...
    save(run.representation.splat(), "torus.ply")

Nothing here keeps a folder, prints, or listens to signals, so all of it serves in notebooks, threads and workers.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import is_dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from gsdistill.core import device as devices
from gsdistill.core.errors import ConfigError, OutOfMemory, OutputError, PromptError, tell
from gsdistill.core.structs import Cameras, Gaussians, on_processor, to_device
from gsdistill.disk.paths import expanded
from gsdistill.disk.read import brief
from gsdistill.disk.texts import check_text
from gsdistill.disk.write import check_targets
from gsdistill.distillation.base import Distillation
from gsdistill.evaluation.plain import plain_figures
from gsdistill.evaluation.references import truth_of_prompt
from gsdistill.evaluation.truth import Figures
from gsdistill.evaluation.truth import evaluate as beside
from gsdistill.export.formats import writer_for
from gsdistill.export.pictures import to_bytes
from gsdistill.export.settings import ExportSettings
from gsdistill.generate import prepared
from gsdistill.models import catalogue
from gsdistill.models.settings import ModelSettings
from gsdistill.prior import loading, own
from gsdistill.prior.base import Prior
from gsdistill.renderer.base import render as drawn
from gsdistill.run import stages
from gsdistill.run.config import resolve
from gsdistill.scene.cameras.base import CameraLaw
from gsdistill.scene.densify.base import Densification
from gsdistill.scene.init.base import Initialiser
from gsdistill.scene.read import read_splat
from gsdistill.scene.sound import check_splat
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.config import from_dict, name_of, to_dict
from gsdistill.training.distiller import Distiller, Term
from gsdistill.training.health import measure

__all__ = ["distil", "evaluate", "load", "load_prior", "render", "save", "turntable_html"]

OF_FILES = (
    *("output", "resume", "accept_changes", "overwrite", "export"),
    *("log_every", "preview_every", "snapshots", "checkpoint_every", "logs"),
)
OBJECTS = {"method": Distillation, "init": Initialiser, "cameras": CameraLaw, "densify": Densification}
TURN = 16  # pictures of a splat's turntable in a notebook
TURN_SIZE = 192  # pixels
TURN_LASTS = 3_200  # milliseconds


def load_prior(prior: str | os.PathLike[str] = "auto", device: str | torch.device = "auto", **settings: Any) -> Prior:
    """Load a diffusion model to distil from.

    Args:
        prior: a name of ``gsdistill list priors``, a diffusers folder, a checkpoint in one file, a hub id, or a class
            of one's own as ``file.py:Class``; ``auto`` is a large model where there is an accelerator and one is
            cached, else the shapes prior.
        device: where it computes, as torch names it; ``auto`` is a GPU where there is one.
        settings: those of ``model.`` on the command line, as in ``precision="float16"``.

    Raises:
        ConfigError: an unknown name, device or setting. ModelNotFound: weights are missing. BadFile: a file is broken.
    """
    devices.check_defaults()
    target = devices.choose(str(device), tell)
    return loading.load_prior(_name(prior), target, from_dict(ModelSettings, settings, "model"), tell)


def distil(
    prompt: str, prior: Prior | str | os.PathLike[str] = "auto", *, terms: Sequence[Term] = (), **settings: Any
) -> Distiller:
    """Prepare the distillation of a prompt: iterating what is returned makes its steps.

    The settings are those of ``gsdistill generate`` with underscores, those of a group in a mapping:
    ``method={"name": "cds", "guidance_scale": 7.5}, iterations=300, cameras={"fov": (40, 50)}``. As there, what is not
    given comes from the recipe for the method with the prior; a Notice (a warning) says where there is none.

    Args:
        prompt: what to make.
        prior: what to distil from; one that is loaded decides the device too.
        terms: more losses, each of what was rendered, its cameras and the progress of the stage (0..1).
        settings: see above; a method, init, cameras or densify may be an object, all of whose settings then stand.

    Raises:
        ConfigError: an unknown setting, a value out of range, one of files (nothing is written here), or another device
            than the prior's. Other UserErrors: of the prior and the initialiser.
    """
    devices.check_defaults()
    if of_files := [name for name in OF_FILES if name in settings]:
        raise ConfigError(f"{of_files[0]} is of `gsdistill generate`: distil keeps no files; save() writes the splat")
    if isinstance(prior, Prior):
        own.check_attributes(prior, f"the prior {type(prior).__name__}")
        if "model" in settings:
            raise ConfigError("model is of how a prior is loaded, and this one is: give it to load_prior")
    if not (isinstance(terms, Iterable) and all(map(callable, terms := list(terms)))):
        raise ConfigError(f"terms = {brief(terms)}: a list of functions is expected, as in terms=[mine]")
    chosen = {**settings, "prompt": prompt, "prior": prior.name if isinstance(prior, Prior) else _name(prior)}
    if "device" in chosen or isinstance(prior, Prior):
        chosen["device"] = str(chosen.get("device", getattr(prior, "device", None)))
    if isinstance(prior, Prior) and devices.choose(chosen["device"]) != prior.device:
        raise ConfigError(f"device = '{chosen['device']}', but the prior {prior.name} is on {prior.device}")
    chosen |= {name: _object(name, chosen[name]) for name in OBJECTS if name in chosen}
    if is_dataclass(method := chosen.get("method")) and ":" not in (name := name_of(method)):
        chosen["method"] = {"name": name, **to_dict(method)}
    config = resolve(chosen, tell)
    name = name_of(config.method)
    if config.recipe and catalogue.recipe(config.prior, name) is None:
        tell(f"no recipe is known for {name} with the prior {config.prior}: the settings are the usual ones")
    for line in stages.lines(config):
        tell(line.replace("--finish none", 'finish="none"'))
    target = devices.choose(config.device)
    devices.prepare(target, config.deterministic)
    loaded = prior if isinstance(prior, Prior) else loading.load_prior(config.prior, target, config.model, tell)
    _, run = prepared(config, loaded, target)
    run.terms.extend(terms)
    return run


def load(path: str | os.PathLike[str]) -> Gaussians:
    """Read a splat: a .ply, .spz, .sog, .splat or .glb, also gzipped, or the folder of a run; turned into our axes.

    Raises:
        BadFile: it is not there, or holds no sound splat. ConfigError: it is no path.
    """
    devices.check_defaults()
    return read_splat(_path(path))


def save(splat: Gaussians, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write a splat in the format that the ending of ``path`` names, and return the path; folders are made.

    Raises:
        ConfigError: no format has this ending, or it is no path, or no splat. NotInstalled: its package is missing.
        OutputError: the file is there and ``overwrite`` is not set, or it cannot be written.
    """
    file, splat = _path(path), _splat(splat)
    writer = writer_for(file, ExportSettings())
    if file.exists() and not overwrite:
        raise OutputError(f"{file} exists; choose another name, or replace it with overwrite=True")
    check_targets([file], overwrite=True)
    for line in writer.write(splat, file):
        tell(line)
    return file


def evaluate(splat: Gaussians, prompt: str | None = None, world: str | None = None) -> Figures:
    """Measure a splat; ``gsdistill evaluate`` prints what each figure means.

    Where ``prompt`` names an object of ``world`` ("shapes", "objects"; None: of the one that fits), there are ``iou``
    of the silhouettes (0..1), ``colour_error`` (0..1) and more; for any other a Notice says so.

    Raises:
        ConfigError: it is no splat, or one without Gaussians, the prompt is no text, or there is no such world.
    """
    splat = _splat(splat)
    if not len(splat):
        raise ConfigError("the splat has no Gaussian, so there is nothing to measure")
    if not isinstance(prompt, str | None):
        raise ConfigError(f"prompt = {brief(prompt)}: a text is expected, or None")
    if prompt is not None:
        try:
            return {**beside(splat, truth_of_prompt(prompt, world)), **plain_figures(splat)}
        except PromptError as error:
            tell(f"what needs a truth is left out: {error}")
    return {**plain_figures(splat)}


def render(
    splat: Gaussians,
    cameras: Cameras | int = 4,
    size: int = 256,
    background: float | Sequence[float] = 1.0,
) -> Float[Tensor, "B H W 3"]:
    """Pictures of a splat, RGB in 0..1, detached and on the CPU: ``plt.imshow(render(splat)[0])``.

    It is drawn with its own options: ``replace(splat, options=...)`` gives it others.

    Args:
        splat: on any device, which draws.
        cameras: or how many at equal steps around the object, 20 degrees above the horizon, the first at the front.
        size: pixels of a side, for such a number.
        background: a grey value or a colour, 0..1.

    Raises:
        ConfigError: it is no splat, the background no colour, or there is no camera. OutOfMemory: for so many pixels.
    """
    splat = _splat(splat)
    try:
        colour = torch.as_tensor(background, dtype=torch.float32).cpu()
        sound = colour.shape in ((), (3,)) and bool(((colour >= 0) & (colour <= 1)).all())
    except (TypeError, ValueError, RuntimeError):
        sound = False
    if not sound:
        raise ConfigError(f"background = {brief(background)} is no grey value or RGB colour in 0..1")
    if not isinstance(cameras, Cameras):
        for name, count in {"cameras": cameras, "size": size}.items():
            if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
                more = ", or Cameras," if name == "cameras" else ""
                raise ConfigError(f"{name} = {brief(count)}: a whole number from 1 on{more} is expected")
        cameras = orbit(int(cameras), int(size))
    return _seen(splat, cameras, colour.expand(3))


def turntable_html(splat: Gaussians) -> str:
    """A small turning picture of a splat over white, as one element of HTML that needs nothing else.

    Of one that cannot be drawn it says why: in a notebook an error would stand in the way of what is shown instead.
    """
    try:
        _splat(splat)
    except ConfigError as error:
        return f"<p>{html.escape(str(error))}</p>"
    label = f"{len(splat):,} Gaussians"
    if not len(splat):
        return f"<p>{label}</p>"
    reach = max(1.0, measure(on_processor(splat)).extent)  # a scene that is larger than the ball is seen whole
    whole = replace(splat, options=replace(splat.options, far=max(splat.options.far, 10.0 * reach)))
    images = _seen(whole, orbit(TURN, TURN_SIZE, distance=3.2 * reach), torch.ones(3))
    frames = [Image.fromarray(one) for one in to_bytes(images)]
    file = io.BytesIO()
    frames[0].save(
        file, "WEBP", save_all=True, append_images=frames[1:], duration=TURN_LASTS // TURN, loop=0, quality=80
    )
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img alt="{label}" title="{label}" width="{TURN_SIZE}" src="data:image/webp;base64,{data}">'


@torch.no_grad()
def _seen(splat: Gaussians, cameras: Cameras, colour: Float[Tensor, "3"]) -> Float[Tensor, "B H W 3"]:
    place = splat.means.device
    backgrounds = colour.expand(len(cameras), 3).contiguous()
    try:
        return drawn(splat, to_device(cameras, place), backgrounds.to(place)).images.clamp(0.0, 1.0).cpu()
    except (MemoryError, RuntimeError) as error:
        if not devices.out_of_memory(error):
            raise
        size = f"{len(cameras)} pictures of {cameras.width} x {cameras.height} pixels"
        raise OutOfMemory(f"there is no memory for {size}; ask for fewer or smaller ones") from error


def _splat(thing: Any) -> Gaussians:
    if not isinstance(thing, Gaussians):
        kind = type(thing).__name__
        raise ConfigError(f"a splat is expected, not {kind}; that of a run is run.representation.splat()")
    devices.check_defaults()
    check_splat(thing)
    return thing


def _path(given: Any) -> Path:
    try:
        name = os.fsdecode(given)
    except TypeError:
        raise ConfigError(f"path = {brief(given)}: the path of a file is expected") from None
    return Path(expanded(check_text(name, True, "path"), "path"))


def _name(prior: Any) -> str:
    if isinstance(prior, (str, Path, os.PathLike)):
        return str(os.fspath(prior))
    raise ConfigError(f"prior = {brief(prior)}: a name or a path is expected")


def _object(name: str, given: Any) -> Any:
    """A setting that may be an object; its class stands for one with the usual settings."""
    base = OBJECTS[name]
    if isinstance(given, type) and issubclass(given, base):
        try:
            return given()
        except TypeError as error:
            raise ConfigError(f"{name} = {given.__qualname__}: {error}") from None
    if isinstance(given, type) or (is_dataclass(given) and not isinstance(given, base)):
        raise ConfigError(
            f"{name} = {brief(given)}: a name, a mapping with one, or an object of {base.__name__} is expected"
        )
    return given


Gaussians._repr_html_ = turntable_html  # type: ignore[attr-defined]  # for notebooks: the ground draws nothing
