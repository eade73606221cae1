"""Priors from outside: a class named ``mylab:Mine``, ``./mine.py:Mine``, or by an entry point of an installed package.

The class is called with the device to compute on, ``Mine(device)``. It loads what it needs itself, so that the settings
``model.*`` have no meaning for it, and it has no card.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, get_args

import torch

from gsdistill.core.device import failure, out_of_memory
from gsdistill.core.errors import ConfigError, UserError, did_you_mean
from gsdistill.disk.read import brief
from gsdistill.models import GROUP
from gsdistill.models.card import Prediction
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.base import Prior
from gsdistill.prior.schedule import NoiseSchedule
from gsdistill.settings.config import to_dict
from gsdistill.settings.registry import broken, load_own

__all__ = ["check_attributes", "load_class", "make"]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


# The attributes of every prior: what each must be, in words and as a check.
_ATTRIBUTES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": ("text", lambda value: isinstance(value, str)),
    "schedule": ("a gsdistill.prior.schedule.NoiseSchedule", lambda value: isinstance(value, NoiseSchedule)),
    "image_size": ("a number of pixels", _whole),
    "latent_shape": (
        "a tuple of channels, height and width",
        lambda value: isinstance(value, tuple) and len(value) == 3 and all(map(_whole, value)),
    ),
    "device": ("a torch.device", lambda value: isinstance(value, torch.device)),
}


def load_class(name: str) -> type[Prior]:
    """Import the class of a prior from outside; its code runs.

    Raises:
        ConfigError: there is no such class, or it cannot be a prior.
    """
    return load_own(name, GROUP, Prior, "prior", made_with=("device",))


def make(name: str, device: torch.device, settings: ModelSettings = ModelSettings()) -> Prior:
    """Make a prior from outside on ``device``.

    Raises:
        ConfigError: as :func:`load_class`; the class fails, or makes a prior that lacks something or is on another
            device; or ``settings``, which are for models that gsdistill loads, differ from the defaults. Other
            UserErrors: as the class raises them.
    """
    subject, cls = f"prior '{name}'", load_class(name)
    usual = to_dict(ModelSettings())
    if changed := [f"model.{key} = {brief(value)}" for key, value in to_dict(settings).items() if value != usual[key]]:
        raise ConfigError(f"{changed[0]} is of models that gsdistill loads; {subject} loads itself")
    try:
        prior = cls(device)
    except (Exception, SystemExit) as error:
        if isinstance(error, UserError) or out_of_memory(error) or failure(error):
            raise
        raise broken(subject, error, getattr(sys.modules[cls.__module__], "__file__", None) or "", "load") from error
    check_attributes(prior, subject)
    if (prior.device.type, prior.device.index or 0) != (device.type, device.index or 0):
        raise ConfigError(
            f"{subject} computes on {prior.device}, not on {device}: let it keep the device that it is made with as "
            f"self.device, or take --device {prior.device}"
        )
    return prior


def check_attributes(prior: Prior, subject: str) -> None:
    """Refuse a prior with missing or wrong attributes; ``subject`` names it in messages. Raises ConfigError."""
    if lacking := [name for name in _ATTRIBUTES if not hasattr(prior, name)]:
        raise ConfigError(f"{subject} lacks {', '.join(lacking)}: attributes that every gsdistill.Prior has")
    for name, (expected, sound) in _ATTRIBUTES.items():
        if not sound(value := getattr(prior, name)):
            raise ConfigError(f"{subject}: {name} = {brief(value)} is not {expected}")
    if (kind := prior.prediction_type) not in get_args(Prediction):
        known = get_args(Prediction)
        raise ConfigError(
            f"{subject}: prediction_type = {brief(kind)}.{did_you_mean(str(kind), known)} Allowed: {', '.join(known)}"
        )
