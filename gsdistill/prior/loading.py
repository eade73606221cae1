"""From a name to a prior that answers: the model's folder, its family, and the one class that serves it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import torch

from gsdistill.errors import BadFile, ModelNotFound
from gsdistill.prior.base import Prior
from gsdistill.prior.cards import find, read_model_card
from gsdistill.prior.hub import fetched
from gsdistill.prior.pretrained import ModelSettings, Origin, Pretrained

__all__ = ["FAMILIES", "family_of", "load_prior"]

# The pipeline that a folder's model_index.json names, and the module and class that serve it.
FAMILIES = {
    "StableDiffusionPipeline": "stable_diffusion.StableDiffusion",
    "StableDiffusionXLPipeline": "sdxl.StableDiffusionXL",
    "IFPipeline": "deepfloyd.DeepFloyd",
    "StableDiffusion3Pipeline": "flow_matching.StableDiffusion3",
    "SanaPipeline": "sana.Sana",
    "MVDreamPipeline": "mvdream.MVDream",
}


def load_prior(
    name_or_path: str, device: torch.device | str = "cpu", settings: ModelSettings = ModelSettings()
) -> Prior:
    """Load a prior by short name, local diffusers folder or hub id.

    Raises:
        ConfigError: unknown name. ModelNotFound: weights or parts are missing. BadFile: a file is corrupted.
    """
    sources = find(name_or_path)
    failures = []
    for source in sources:
        try:
            folder = fetched(source, settings.revision)
            leaf = family_of(folder)
            return leaf(Origin(folder, read_model_card(source, name_or_path), settings, torch.device(device)))
        except ModelNotFound as error:
            failures.append(str(error))
    tried = f" (tried {', '.join(sources)})" if len(sources) > 1 else ""
    raise ModelNotFound(failures[-1] + tried)


def family_of(folder: Path) -> type[Pretrained]:
    """The class that serves a folder; one without model_index.json is of the Stable Diffusion kind.

    Raises:
        BadFile: its pipeline is of no family that we know.
    """
    index = folder / "model_index.json"
    name = "StableDiffusionPipeline"
    if index.is_file():
        try:
            name = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadFile(f"{index} is not the index of a diffusers model: {error}") from error
    if name not in FAMILIES:
        raise BadFile(f"{index}: {name} is of no family that can be a prior; known: {', '.join(FAMILIES)}")
    module, _, leaf = FAMILIES[name].partition(".")
    return getattr(importlib.import_module(f"gsdistill.prior.{module}"), leaf)
