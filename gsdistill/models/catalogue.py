"""The catalogue of priors (cards.yaml): their names, where their files are, and their recipes.

A plain diffusers folder needs no card: it is a latent model with an autoencoder and no cameras. ``gsdistill.json`` in a
folder can declare that images are folded into channels, Fourier features of the camera, the cameras of its training,
and the closed world of its prompts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from gsdistill.core.errors import ConfigError, ModelNotFound, did_you_mean
from gsdistill.core.ranges import bounded
from gsdistill.disk.paths import there
from gsdistill.disk.places import data_path
from gsdistill.models import GROUP
from gsdistill.models.card import Prediction, read_model_card
from gsdistill.models.hub import Need, cached_file, cached_snapshot
from gsdistill.models.pipelines import FAMILIES, needed_parts
from gsdistill.settings.config import from_dict
from gsdistill.settings.registry import OWN, installed, is_own

if TYPE_CHECKING:
    import torch

__all__ = [
    "SINGLE",
    "PriorCard",
    "cached_source",
    "cards",
    "choose_prior",
    "find_model",
    "is_hub_id",
    "is_local",
    "is_outside",
    "known",
    "quality",
    "recipe",
    "refuse_mistyped",
]

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
OTHER_FILES = (".bin", ".gguf", ".onnx", ".zip")  # of models that cannot be read
SHOWN = 12  # entries of a folder in a message
SINGLE = (".safetensors", ".ckpt", ".pt", ".pth")  # how the name of a model in one file ends


@dataclass(frozen=True)
class PriorCard:
    """One entry of cards.yaml."""

    sources: tuple[str, ...]  # hub ids in the order they are tried, or one folder that ships with gsdistill
    pipeline: str  # what its model_index.json names: a key of gsdistill.models.pipelines
    summary: str
    licence: str
    prediction_type: Prediction
    resolution: int = bounded(low=8)  # of the images that it was trained on, in pixels
    guidance_scale: float = bounded(low=1)  # omega of eps_u + omega h that its users take for pictures
    size_gb: float = bounded(low=0)  # 10^9 bytes that are downloaded in half precision, for when the hub is not asked
    # 10^9 bytes of GPU memory for a step of 4 views in half precision; and 10^12 operations of such a step of sds, of
    # the network (8 samples) and of the autoencoder. They are counted from the tensors' shapes, not measured.
    gpu_gb: float | None = None
    step_tflop: tuple[float, float] | None = None
    gated: bool = False  # the hub asks for an accepted licence, and `hf auth login`
    variant: Literal["fp16"] | None = None  # its weights exist in half precision too
    revision: str | None = None  # branch, tag or commit; none: the hub's main
    vae: str | None = None  # hub id of an autoencoder that works in float16 if its own does not; for --model.vae
    base: str | None = None  # if the network is one file: the card whose model has the other parts
    checkpoint: str | None = None  # the name of that file in the sources, in the original layout
    recipes: str | None = None  # a group of recipes.yaml and qualities.yaml

    @property
    def shipped(self) -> bool:
        """Whether it comes with gsdistill."""
        return self.sources[0].startswith("assets/")

    def gigabytes(self, half: bool) -> float:
        """About how many 10^9 bytes are downloaded at most."""
        return self.size_gb if half or self.variant is None else 2 * self.size_gb

    def download(self, half: bool) -> str:
        """The same in words."""
        if half or self.variant is None:
            return f"about {self.size_gb:g} GB{' in half precision' if self.variant else ''}, by the card"
        return f"up to {self.gigabytes(half):g} GB in float32, by the card"


@lru_cache
def cards() -> dict[str, PriorCard]:
    """Every prior with a short name."""
    return {name: from_dict(PriorCard, entry, f"cards.yaml: {name}") for name, entry in _shipped("cards.yaml").items()}


def known() -> list[str]:
    """Every short name: those of the cards, and those of priors in installed packages."""
    return [*cards(), *(name for name in installed(GROUP) if name not in cards())]


def recipe(prior: str, method: str) -> str | None:
    """The shipped config that ``method`` starts from with ``prior``, or None for the method's own defaults."""
    group = _recipes(prior)
    return _shipped("recipes.yaml")[group].get(method) if group else None


def quality(prior: str, method: str, name: str) -> dict[str, Any]:
    """What ``--quality`` sets over the recipe of ``method`` with ``prior``; ``steps`` is a share of its iterations."""
    group = _shipped("qualities.yaml")[_recipes(prior) or "published"]
    return {**group, **group.get(method, {})}.get(name, {})


def _recipes(prior: str) -> str | None:
    """The group of recipes that the card of a prior names."""
    if (Path(prior) / "gsdistill.json").is_file():
        prior = read_model_card(prior, prior).name
    card = cards().get(prior)
    return card.recipes if card else None


def choose_prior(name: str, device: torch.device) -> tuple[str, str | None]:
    """Resolve ``auto``: a cached large prior if there is an accelerator, else the shapes prior.

    Returns the name and one line for the user (None when ``name`` was not ``auto``).
    """
    if name != "auto":
        return name, None
    if device.type == "cpu":
        return "shapes", "prior: shapes (no accelerator here; --prior picks another)"
    if cached := next((name for name in cards() if cached_source(name)), None):
        return cached, f"prior: {cached} (an accelerator and its cached weights are here; --prior picks another)"
    return "shapes", "prior: shapes (no large model is cached; `gsdistill doctor` says how to get one)"


def cached_source(name: str) -> str | None:
    """The first hub id of a card that is in the cache with all that the prior needs, in full or half precision."""
    card = cards()[name]
    if card.checkpoint and card.base:
        there = [source for source in card.sources if cached_file(source, card.checkpoint, card.revision)]
        base, need = cards()[card.base], Need(lambda folder: FAMILIES[card.pipeline].others)
        whole = any(cached_snapshot(source, need, base.revision) for source in base.sources)
        return there[0] if there and whole else None
    sources = () if card.shipped else card.sources
    return next((source for source in sources if cached_snapshot(source, Need(needed_parts), card.revision)), None)


def find_model(name_or_path: str, setting: str = "prior") -> tuple[str, ...]:
    """What a short name, a path or a hub id refers to: a local folder or file, or hub ids in the order to try them.

    ``setting`` is the setting that holds the name, for messages.

    Raises:
        ConfigError: it is neither a known name, nor a folder or file that exists, nor formed like a hub id; or as
            :func:`refuse_mistyped`.
        ModelNotFound: the folder that ships with gsdistill is not there.
    """
    card = cards().get(name_or_path)
    if card and card.shipped:
        folder = data_path(*card.sources[0].split("/"))
        if not folder.is_dir():
            raise ModelNotFound(f"{folder}, which ships with gsdistill, is missing; install gsdistill again")
        return (str(folder),)
    if card:
        return card.sources
    if is_local(name_or_path) or is_hub_id(name_or_path):
        refuse_mistyped(name_or_path)
        return (name_or_path,)
    names, own = (["auto", *known()], f", or one of your own as {OWN}") if setting == "prior" else ([*cards()], "")
    raise ConfigError(
        f"{setting} = '{name_or_path}' is neither a known prior nor a folder or file that is there."
        f"{did_you_mean(name_or_path, names)} Known: {', '.join(names)}, a diffusers folder, a .safetensors file in "
        f"the original layout, or a hub id owner/name{own}"
    )


def is_local(name: str) -> bool:
    """Whether a setting that names a model is the path of a folder or file on this machine."""
    return bool(name) and name not in cards() and Path(name).exists()


def is_outside(name: str) -> bool:
    """Whether a prior's name is that of a class from outside, which :mod:`gsdistill.prior.own` loads.

    Nothing is loaded. An existing folder is never taken for one.
    """
    if name in known():
        return name not in cards()
    return is_own(name) and (not there(name) or Path(name).is_file())


def is_hub_id(name: str) -> bool:
    """Whether ``name`` has the form owner/name and does not end as a model's file does."""
    return HUB_ID.fullmatch(name) is not None and not name.lower().endswith((*SINGLE, *OTHER_FILES))


def refuse_mistyped(name: str) -> None:
    """Refuse a hub id that is probably a mistyped path: it is not in the cache, and its first part is a folder here.

    Else the hub would learn the name of a private folder.

    Raises:
        ConfigError: it is such a name; the message lists what the folder holds.
    """
    folder = Path(name).parent
    if Path(name).exists() or not folder.is_dir() or cached_file(name, "model_index.json"):
        return
    inside = sorted(f"{folder / path.name}" for path in folder.iterdir())
    several = ", ".join(inside[:SHOWN]) + ", ..." * (len(inside) > SHOWN) if inside else "nothing"
    raise ConfigError(
        f"there is no folder or file '{name}'; in {folder} there is {several}."
        f"{did_you_mean(name, inside)} The hub is not asked for a name that begins as a folder here"
    )


def world_of(name_or_path: str) -> str | None:
    """The closed world of a prior's prompts, by its folder's card; None if any prompt is allowed.

    A class from outside is not loaded; it has none.

    Raises:
        ConfigError, ModelNotFound: as :func:`find_model`. BadFile: the card cannot be read.
    """
    if is_outside(name_or_path):
        return None
    return read_model_card(find_model(name_or_path)[0], name_or_path).world


def _shipped(name: str) -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name(name).read_text(encoding="utf-8"))
