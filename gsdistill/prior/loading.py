"""From a name to a prior that answers: the model's folder, its family, and the one class that serves it."""

from __future__ import annotations

from pathlib import Path

import torch

from gsdistill.errors import ConfigError, ModelNotFound
from gsdistill.prior.base import Prior
from gsdistill.prior.cards import cards, find, read_model_card
from gsdistill.prior.families import FAMILIES, family_of, leaf_of, needed_parts
from gsdistill.prior.hub import Need, fetched, fetched_file
from gsdistill.prior.layout import check_weights, chosen, lack, listing, weight_files
from gsdistill.prior.lora_files import check
from gsdistill.prior.parts import pick_class
from gsdistill.prior.pretrained import AUTOENCODERS, ModelSettings, Origin
from gsdistill.prior.single_file import Kind, assembled, converted, kind_of

__all__ = ["CONFIGS", "FAMILIES", "check_folder", "family_of", "load_prior"]

# The card that completes a checkpoint in one file; one of Stable Diffusion 2 does not say what it predicts.
CONFIGS: dict[Kind, str] = {"v1": "sd15", "xl_base": "sdxl", "mvdream": "sd21-base"}


def load_prior(
    name_or_path: str, device: torch.device | str = "cpu", settings: ModelSettings = ModelSettings()
) -> Prior:
    """Load a prior by short name, diffusers folder, checkpoint in one file, or hub id.

    Nothing is asked of the network for what is on this machine: folders, files, and complete snapshots in the cache.

    Raises:
        ConfigError: unknown name, or a setting that means nothing for it. ModelNotFound: weights or parts are missing,
            or the hub does not give them. BadFile: a file is corrupted or of another kind. OutputError: a checkpoint in
            one file cannot be kept as a folder.
    """
    for file in settings.lora:
        check(file)
    target = torch.device(device)
    half = settings.precision != "float32" and (settings.precision != "auto" or target.type != "cpu")
    folder = _folder(name_or_path, settings, half)
    check_folder(folder, half, settings.vae)
    return family_of(folder)(Origin(folder, read_model_card(str(folder), name_or_path), settings, target))


def check_folder(folder: Path, half: bool = False, vae: Path | None = None) -> None:
    """Refuse a folder that its family cannot serve, before anything heavy is loaded; ``vae`` serves for its own.

    Raises:
        ModelNotFound: a part, a config or weights are missing. BadFile: a file is corrupted or of another kind, or a
            config tells of a model that the family cannot feed.
    """
    parts, files = needed_parts(folder, own_vae=vae is None), listing(folder)
    if told := lack(folder, files, parts):
        raise ModelNotFound(told)
    if vae or "vae" in parts:
        pick_class(vae or folder, "" if vae else "vae", AUTOENCODERS)
    family_of(folder).check_configs(folder, vae)
    check_weights(folder, chosen(files, parts, half))
    if vae:
        held = weight_files(list(listing(vae)), half)
        if held is None or held.missing:
            raise ModelNotFound(f"the weights {vae}/*.safetensors are missing; install or copy the model again")
        check_weights(vae, held.names)


def _folder(name: str, settings: ModelSettings, half: bool) -> Path:
    """Where the model lies in the diffusers layout, once it is there."""
    card = cards().get(name)
    if card and card.checkpoint and card.base:
        file = fetched_file(name, card.sources, card.checkpoint, settings.revision or card.revision, _advice(name))
        return assembled(file, _base(settings.config or card.base, half))
    sources = find(name)
    here = Path(sources[0]).exists()
    if here and settings.revision:
        raise ConfigError(f"model.revision = '{settings.revision}' is of the hub, and {sources[0]} is on this machine")
    if here and Path(sources[0]).is_file():
        return _from_file(Path(sources[0]), settings, half)
    if settings.config:
        raise ConfigError(f"model.config = '{settings.config}' is for checkpoints in one file, and {name} is none")
    revision = settings.revision or (card.revision if card else None)
    need = Need(lambda folder: needed_parts(folder, own_vae=settings.vae is None), half)
    return fetched(name, sources, need, revision, _advice(name))


def _from_file(file: Path, settings: ModelSettings, half: bool) -> Path:
    kind = kind_of(file)
    config = settings.config or CONFIGS.get(kind)
    if config is None:
        raise ConfigError(
            f"{file} is of Stable Diffusion 2 and does not say what it predicts: name the model that it fits with "
            "--model.config sd21-base (noise, 512 px) or --model.config sd21 (v, 768 px)"
        )
    if kind == "mvdream":
        return assembled(file, _base(config, half))
    need = Need(needed_parts, weights=False)
    return converted(file, kind, _completion(config, need, f"{file} needs configs and a tokenizer"))


def _base(config: str, half: bool) -> Path:
    """The folder whose text encoder, autoencoder, tokenizer and scheduler serve MVDream's U-Net."""
    parts = [part for part in leaf_of("MVDreamPipeline").PARTS if part != "unet"]
    return _completion(config, Need(lambda folder: parts, half), "mvdream needs the other parts of its base")


def _completion(config: str, need: Need, purpose: str) -> Path:
    """The folder, card or hub id that completes a checkpoint in one file."""
    card, sources = cards().get(config), find(config)
    if Path(sources[0]).is_file():
        raise ConfigError(f"model.config = '{config}' is a file; it takes a diffusers folder, a short name or a hub id")
    try:
        return fetched(config, sources, need, card.revision if card else None)
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
