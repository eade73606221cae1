"""Which priors there are (cards.yaml), where their files are, and what a model folder says of itself (gsdistill.json).

A plain diffusers folder needs no card: it is a latent model with a VAE and no cameras. A folder with ``gsdistill.json``
can declare a fold-into-channels encoder, Fourier features of the camera, the cameras it was trained on, and that its
prompts come from the closed world of gsdistill.shapes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from gsdistill.config import from_dict
from gsdistill.errors import BadFile, ConfigError, ModelNotFound, did_you_mean
from gsdistill.files import data_path

__all__ = ["CameraCard", "Card", "ModelCard", "cached_source", "cards", "choose", "find", "read_model_card", "recipe"]


_UNET = "unet/diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Card:
    """One entry of cards.yaml."""

    sources: tuple[str, ...]
    summary: str
    licence: str
    recipes: str | None  # a group of recipes.yaml


@dataclass(frozen=True)
class CameraCard:
    """What a camera-conditioned model is fed, and the cameras it knows: degrees and world units."""

    features: Literal["fourier"]
    distance: float
    fov: float
    elevation: tuple[float, float]
    azimuth_frequencies: tuple[int, ...] = ()
    elevation_frequencies: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelCard:
    """gsdistill.json of a model folder."""

    name: str
    encoder: Literal["vae", "unshuffle"] = "vae"
    factor: int = 1
    image_size: int | None = None
    licence: str = "unknown"
    world: Literal["shapes"] | None = None
    camera: CameraCard | None = None


def cards() -> dict[str, Card]:
    """Every prior with a short name."""
    return {
        name: Card(tuple(c["sources"]), c["summary"], c["licence"], c.get("recipes"))
        for name, c in _shipped("cards.yaml").items()
    }


def recipe(prior: str, method: str) -> str | None:
    """The shipped config that ``method`` starts from with ``prior``, or None for the method's own defaults."""
    if (Path(prior) / "gsdistill.json").is_file():
        prior = read_model_card(prior, prior).name
    card = cards().get(prior)
    return _shipped("recipes.yaml")[card.recipes].get(method) if card and card.recipes else None


def choose(name: str, device: torch.device) -> tuple[str, str | None]:
    """Resolve ``auto``: a cached large prior where there is an accelerator, else the shapes prior; and say why.

    Returns the name and one line for the user (None when ``name`` was not ``auto``).
    """
    if name != "auto":
        return name, None
    if device.type == "cpu":
        return "shapes", "prior: shapes (no accelerator here; --prior picks another)"
    for candidate in cards():
        if candidate != "shapes" and cached_source(candidate):
            return (
                candidate,
                f"prior: {candidate} (an accelerator and its cached weights are here; --prior picks another)",
            )
    return "shapes", "prior: shapes (no large model is cached; `gsdistill doctor` says how to get one)"


def cached_source(name: str) -> str | None:
    """The first hub id of a card whose U-Net is in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    for source in cards()[name].sources:
        if not source.startswith("assets/") and isinstance(try_to_load_from_cache(source, _UNET), str):
            return source
    return None


def find(name_or_path: str) -> tuple[str, ...]:
    """Where to load a short name, a path or a hub id from: a local folder, or hub ids in the order to try them.

    Raises:
        ConfigError: neither a known name nor a folder that exists.
        ModelNotFound: the folder lacks a part.
    """
    card = cards().get(name_or_path)
    if card:
        if card.sources[0].startswith("assets/"):
            return (_checked_folder(data_path(*card.sources[0].split("/"))),)
        cached = cached_source(name_or_path)
        return (cached,) if cached else card.sources
    if Path(name_or_path).is_dir():
        return (_checked_folder(Path(name_or_path)),)
    known = list(cards())
    if name_or_path.count("/") == 1 and not name_or_path.startswith((".", "/", "~")):
        return (name_or_path,)  # a hub id
    hint = did_you_mean(name_or_path, known)
    raise ConfigError(
        f"prior = '{name_or_path}' is neither a known prior nor a folder.{hint} Known: auto, {', '.join(known)}, "
        "a diffusers folder, or a hub id owner/name"
    )


def read_model_card(source: str, name: str) -> ModelCard:
    """The folder's gsdistill.json, or the card of a plain latent model."""
    path = Path(source) / "gsdistill.json"
    if not path.is_file():
        return ModelCard(name=name)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadFile(f"{path} is not JSON: {error}") from error
    return from_dict(ModelCard, content, path.name)


def _shipped(name: str) -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def _checked_folder(folder: Path) -> str:
    parts = {
        "unet/config.json": "unet/*.safetensors",
        "text_encoder/config.json": "text_encoder/*.safetensors",
        "tokenizer/tokenizer_config.json": "tokenizer/*",
        "scheduler/scheduler_config.json": "scheduler/*",
    }
    for config, weights in parts.items():
        if not (folder / config).is_file():
            raise ModelNotFound(f"{folder} is not a Stable Diffusion folder: {config} is missing")
        if not any(folder.glob(weights)):
            raise ModelNotFound(f"the weights {folder / weights} are missing; install or copy the model again")
    _check_weights(folder)
    return str(folder)


def _check_weights(folder: Path) -> None:
    """Refuse cut weights, and any file that differs from the folder's SHA256SUMS, where it has one."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*/*.safetensors")):
        try:
            safe_open(path, framework="pt")
        except SafetensorError as error:
            raise BadFile(f"the weights {path} are corrupted ({error}); install or copy the model again") from error
    sums = folder / "SHA256SUMS"
    for line in sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else ():
        digest, _, name = line.partition("  ")
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise BadFile(f"{folder / name} is not what {sums.name} promises; install or copy the model again")
