"""From a name to a prior that answers."""

from __future__ import annotations

import torch

from gsdistill.errors import ModelNotFound
from gsdistill.prior.base import Prior
from gsdistill.prior.cards import find, read_model_card
from gsdistill.prior.stable_diffusion import StableDiffusion

__all__ = ["load_prior"]


def load_prior(name_or_path: str, device: torch.device | str = "cpu") -> Prior:
    """Load a prior by short name, local diffusers folder or hub id.

    Raises:
        ConfigError: unknown name. ModelNotFound: weights or parts are missing. BadFile: a file is corrupted.
    """
    sources = find(name_or_path)
    failures = []
    for source in sources:
        try:
            return StableDiffusion(source, read_model_card(source, name_or_path), torch.device(device))
        except ModelNotFound as error:
            failures.append(str(error))
    tried = f" (tried {', '.join(sources)})" if len(sources) > 1 else ""
    raise ModelNotFound(failures[-1] + tried)
