"""Finds, downloads or converts a model by name; the result is a complete folder in the diffusers layout."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from gsdistill.core.errors import BadFile, ConfigError, ModelNotFound
from gsdistill.disk.read import read_json
from gsdistill.models.catalogue import cards, find_model
from gsdistill.models.hub import Need, fetch, fetch_file
from gsdistill.models.layout import check_weights, chosen, lack, listing
from gsdistill.models.load import AUTOENCODERS, pick_class
from gsdistill.models.lora_files import check_lora
from gsdistill.models.original import Kind, Original, look
from gsdistill.models.pipelines import FAMILIES, needed_parts
from gsdistill.models.settings import ModelSettings
from gsdistill.models.single_file import SCHEDULER, assemble, convert, convert_vae

__all__ = ["WHICH_2", "check_parts", "completing", "in_half", "locate_model", "other_vae"]

# The card that completes a checkpoint in one file; that of Stable Diffusion 2 depends on what the network predicts.
CONFIGS: dict[Kind, str] = {"v1": "sd15", "xl_base": "sdxl", "mvdream": "sd21-base"}
CONFIGS_2: dict[str | None, str] = {"epsilon": "sd21-base", "v_prediction": "sd21"}
WHICH_2 = "--model.config sd21-base (noise, 512 px) or --model.config sd21 (v, 768 px)"


def locate_model(
    name: str, settings: ModelSettings, half: bool, say: Callable[[str], None] = lambda line: None
) -> tuple[Path, Path | None]:
    """Return the folder of a model, and that of the autoencoder that replaces its own, if any; loads no weights.

    Raises:
        ConfigError, ModelNotFound, BadFile, OutputError: as :func:`gsdistill.prior.loading.load_prior`.
    """
    for file in settings.lora:
        check_lora(file)
    if settings.vae:
        find_model(settings.vae, "model.vae")
    folder = _folder(name, settings, half, say)
    vae = other_vae(folder, settings, half)
    check_parts(folder, half, needed_parts(folder, own_vae=vae is None))
    return folder, vae


def in_half(settings: ModelSettings, device: torch.device) -> bool:
    """Whether half-precision files are preferred: by the settings, or, if they say "auto", on an accelerator."""
    return settings.precision != "float32" and (settings.precision != "auto" or device.type != "cpu")


def other_vae(folder: Path, settings: ModelSettings, half: bool = False) -> Path | None:
    """Return the folder of the autoencoder that the settings name for the model in ``folder``, whole and here.

    None: they name none, or the model uses none.

    Raises:
        ModelNotFound: it cannot be downloaded, or lacks a part. BadFile: a file is corrupted or of another kind.
        OutputError: a file cannot be kept as a folder.
    """
    if settings.vae is None or "vae" not in needed_parts(folder):
        return None
    card, sources = cards().get(settings.vae), find_model(settings.vae, "model.vae")
    if Path(sources[0]).is_file():
        return convert_vae(Path(sources[0]), folder)
    need = Need(lambda place: ("vae",) if (place / "model_index.json").is_file() else ("",), half)
    advice = "; or name a folder, a .safetensors file or another hub id with --model.vae"
    place = fetch(settings.vae, sources, need, card.revision if card else None, advice)
    check_parts(place, half, need.parts(place))
    return place.joinpath(*need.parts(place))


def check_parts(folder: Path, half: bool, parts: Sequence[str]) -> None:
    """Refuse a folder that lacks one of ``parts``, which may be the folder itself (""), before anything is loaded.

    Raises:
        ModelNotFound: a part, a config or weights are missing. BadFile: a file is corrupted or of another kind.
    """
    files = listing(folder)
    if missing := lack(folder, files, parts):
        raise ModelNotFound(missing)
    for part in {"vae", ""}.intersection(parts):
        pick_class(folder, part, AUTOENCODERS)
    check_weights(folder, chosen(files, parts, half))


def completing(original: Original) -> str | None:
    """The card whose configs and tokenizer fit a checkpoint; None if the checkpoint does not say what it predicts."""
    return CONFIGS_2.get(original.prediction) if original.kind == "v2" else CONFIGS[original.kind]


def _folder(name: str, settings: ModelSettings, half: bool, say: Callable[[str], None]) -> Path:
    """Find, download or convert the model; return its folder."""
    card = cards().get(name)
    if card and card.checkpoint and card.base:
        file = fetch_file(name, card.sources, card.checkpoint, settings.revision or card.revision, _advice(name))
        return assemble(file, _base(settings.config or card.base, half))
    sources = find_model(name)
    here = Path(sources[0]).exists()
    if here and settings.revision:
        raise ConfigError(f"model.revision = '{settings.revision}' is of the hub, and {sources[0]} is on this machine")
    if here and Path(sources[0]).is_file():
        return _from_file(Path(sources[0]), settings, half, say)
    if settings.config:
        raise ConfigError(f"model.config = '{settings.config}' is for checkpoints in one file, and {name} is none")
    revision = settings.revision or (card.revision if card else None)
    in_file = settings.vae is not None and Path(find_model(settings.vae, "model.vae")[0]).is_file()
    parts = functools.partial(needed_parts, own_vae=settings.vae is None)
    need = Need(parts, half, configs=("vae",) if in_file else ())
    return fetch(name, sources, need, revision, _advice(name))


def _from_file(file: Path, settings: ModelSettings, half: bool, say: Callable[[str], None]) -> Path:
    original = look(file)
    config = settings.config or completing(original)
    if config is None:
        raise ConfigError(
            f"{file} is of Stable Diffusion 2 and does not say what it predicts: name the model that it fits with "
            f"{WHICH_2}"
        )
    if original.kind == "mvdream":
        return assemble(file, _base(config, half))
    if settings.vae is None and not original.has_vae:
        raise BadFile(f"{file} holds no autoencoder: name one, such as that of its configs by --model.vae {config}")
    need = Need(needed_parts, weights=False)
    folder = _completion(config, need, f"{file} needs configs and a tokenizer")
    converted = convert(original, folder)
    theirs = {"prediction_type": "epsilon", **read_json(folder / SCHEDULER)}["prediction_type"]
    if settings.config and original.prediction not in (None, theirs):
        say(f"{file} says itself that it predicts {original.prediction}, which goes before {theirs} of {config}")
    return converted


def _base(config: str, half: bool) -> Path:
    """The folder of the model whose text encoder, autoencoder, tokenizer and scheduler MVDream uses."""
    need = Need(lambda folder: FAMILIES["MVDreamPipeline"].others, half)
    return _completion(config, need, "mvdream needs the other parts of its base")


def _completion(config: str, need: Need, purpose: str) -> Path:
    """The folder, card or hub id that completes a checkpoint in one file."""
    card, sources = cards().get(config), find_model(config)
    if Path(sources[0]).is_file():
        raise ConfigError(f"model.config = '{config}' is a file; it takes a diffusers folder, a short name or a hub id")
    try:
        return fetch(config, sources, need, card.revision if card else None)
    except ModelNotFound as error:
        other = "; or name a diffusers folder that has them with --model.config"
        raise ModelNotFound(f"{purpose}: {error}{other}") from error


def _advice(name: str) -> str:
    """What to do when all sources of a model fail."""
    related = {short: card for short, card in cards().items() if name in card.sources and len(card.sources) > 1}
    for short, card in related.items():
        others = ", ".join(source for source in card.sources if source != name)
        return f"; --prior {short} also tries {others}"
    return "; or name another hub id or a diffusers folder with --prior"
