"""From a name to a prior that answers: the model's folder, its family, and the one class that serves it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import torch

from gsdistill.models import GROUP
from gsdistill.models.card import read_model_card
from gsdistill.models.catalogue import cards, choose, find, is_outside
from gsdistill.models.locate import check_folder, in_half, locate
from gsdistill.models.pipelines import FAMILIES, Family, family_of, needed_parts
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.base import Prior
from gsdistill.prior.families.base import Origin, Pretrained
from gsdistill.prior.own import load_class, make
from gsdistill.settings.config import validate
from gsdistill.settings.registry import tell_of_twin

__all__ = [
    "check_model",
    "group_of",
    "leaf_of",
    "load_prior",
    "located",
]


def load_prior(
    name_or_path: str | Path,
    device: torch.device | str = "cpu",
    settings: ModelSettings = ModelSettings(),
    say: Callable[[str], None] = lambda line: None,
) -> Prior:
    """Load a prior by short name, folder, checkpoint in one file, hub id or class; ``auto`` is what serves here.

    ``say`` is told what of the settings gives way to what a file says of itself. Nothing is asked of the network for
    what is on this machine: folders, files, and complete snapshots in the cache.

    Raises:
        ConfigError: unknown name, or a setting that means nothing for it. ModelNotFound: weights or parts are missing,
            or the hub does not give them. BadFile: a file is corrupted or of another kind. OutputError: a checkpoint in
            one file cannot be kept as a folder. Of a class from outside: as :func:`gsdistill.prior.own.make`.
    """
    settings = validate(settings, "model")
    name, reason = choose(str(name_or_path), torch.device(device))
    if reason:
        say(reason)
    if is_outside(name):
        return make(name, torch.device(device), settings)
    tell_of_twin(name, GROUP, "prior")
    origin = located(name, torch.device(device), settings, say)
    return leaf_of(family_of(origin.folder))(origin)


def leaf_of(family: Family) -> type[Pretrained]:
    """The class that serves a family."""
    module, _, leaf = family.leaf.rpartition(".")
    return getattr(importlib.import_module(f"gsdistill.prior.families.{module}"), leaf)


def group_of(name_or_path: str) -> int:
    """How many views a prior sees together, by its card, folder or class; 1 where only its weights tell.

    Raises:
        ConfigError, ModelNotFound: as :func:`gsdistill.models.catalogue.find`. BadFile: as
            :func:`gsdistill.models.pipelines.family_of`. ConfigError: as :func:`gsdistill.prior.own.load_class`, of one
            from outside.
    """
    if is_outside(name_or_path):
        return load_class(name_or_path).view_group
    card = cards().get(name_or_path)
    if card and not card.shipped:
        return leaf_of(FAMILIES[card.pipeline]).view_group
    source = Path(find(name_or_path)[0])
    return leaf_of(family_of(source)).view_group if source.is_dir() else 1


def located(
    name_or_path: str, device: torch.device, settings: ModelSettings, say: Callable[[str], None] = lambda line: None
) -> Origin:
    """What a prior is made from, on this machine and whole; no weights are loaded. Raises what ``load_prior`` does."""
    folder, vae = locate(name_or_path, settings, in_half(settings, device), say)
    leaf_of(family_of(folder)).check_configs(folder, vae)
    return Origin(folder, read_model_card(str(folder), name_or_path), settings, device, vae=vae)


def check_model(folder: Path, half: bool = False, vae: Path | None = None) -> None:
    """Refuse a folder that its family cannot serve, before anything heavy is loaded; ``vae`` serves for its own.

    Raises:
        ModelNotFound: a part, a config or weights are missing. BadFile: a file is corrupted or of another kind, or a
            config tells of a model that the family cannot feed.
    """
    check_folder(folder, half, needed_parts(folder, own_vae=vae is None))
    leaf_of(family_of(folder)).check_configs(folder, vae)
