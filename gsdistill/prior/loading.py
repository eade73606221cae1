"""Loads a prior by name: finds the model's folder, its family, and the class that serves the family."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import torch

from gsdistill.models import GROUP
from gsdistill.models.card import read_model_card
from gsdistill.models.catalogue import cards, choose_prior, find_model, is_outside
from gsdistill.models.locate import check_parts, in_half, locate_model
from gsdistill.models.pipelines import FAMILIES, Family, family_of, needed_parts
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.base import Prior
from gsdistill.prior.families.base import Origin, Pretrained
from gsdistill.prior.own import load_class, make
from gsdistill.settings.config import validate
from gsdistill.settings.registry import tell_of_twin

__all__ = ["check_model", "group_of", "leaf_of", "load_prior", "located"]


def load_prior(
    name_or_path: str | Path,
    device: torch.device | str = "cpu",
    settings: ModelSettings = ModelSettings(),
    say: Callable[[str], None] = lambda line: None,
) -> Prior:
    """Load a prior by short name, folder, checkpoint in one file, hub id or class; ``auto`` chooses for this machine.

    ``say`` gets lines for the user: what ``auto`` chose, and which settings a file overrules. The network is not asked
    for a model that is on this machine: a folder, a file, or a complete snapshot in the cache.

    Raises:
        ConfigError: the name is unknown, or a setting has no meaning for this prior. ModelNotFound: weights or parts
            are missing, or cannot be downloaded. BadFile: a file is corrupted or of another kind. OutputError: a
            checkpoint in one file cannot be converted to a folder. For a class from outside: as
            :func:`gsdistill.prior.own.make`.
    """
    settings = validate(settings, "model")
    name, reason = choose_prior(str(name_or_path), torch.device(device))
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
    """How many views a prior sees together, by its card, folder or class; 1 if only its weights could tell.

    Raises:
        ConfigError, ModelNotFound: as :func:`gsdistill.models.catalogue.find_model`. BadFile: as
            :func:`gsdistill.models.pipelines.family_of`. For a class from outside: as
            :func:`gsdistill.prior.own.load_class`.
    """
    if is_outside(name_or_path):
        return load_class(name_or_path).view_group
    card = cards().get(name_or_path)
    if card and not card.shipped:
        return leaf_of(FAMILIES[card.pipeline]).view_group
    source = Path(find_model(name_or_path)[0])
    return leaf_of(family_of(source)).view_group if source.is_dir() else 1


def located(
    name_or_path: str, device: torch.device, settings: ModelSettings, say: Callable[[str], None] = lambda line: None
) -> Origin:
    """The complete model of a prior on this machine, downloaded if necessary, not loaded. Raises as ``load_prior``."""
    folder, vae = locate_model(name_or_path, settings, in_half(settings, device), say)
    leaf_of(family_of(folder)).check_configs(folder, vae)
    return Origin(folder, read_model_card(str(folder), name_or_path), settings, device, vae=vae)


def check_model(folder: Path, half: bool = False, vae: Path | None = None) -> None:
    """Refuse a folder that its family cannot serve, before weights are loaded; ``vae`` replaces its own autoencoder.

    ``half`` prefers files in half precision.

    Raises:
        ModelNotFound: a part, a config or weights are missing. BadFile: a file is corrupted or of another kind, or by
            its config the network needs inputs that the family does not have.
    """
    check_parts(folder, half, needed_parts(folder, own_vae=vae is None))
    leaf_of(family_of(folder)).check_configs(folder, vae)
