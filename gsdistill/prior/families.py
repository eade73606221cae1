"""Families of models: the class that serves a pipeline, and the parts of its folder that it needs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from gsdistill.errors import BadFile
from gsdistill.prior.cards import cards, find, is_outside, read_model_card
from gsdistill.prior.own import load_class
from gsdistill.prior.pretrained import Pretrained
from gsdistill.reading import read_json

__all__ = ["FAMILIES", "family_of", "group_of", "leaf_of", "needed_parts"]

# The pipeline that a folder's model_index.json names, and the module and class that serve it.
FAMILIES = {
    "StableDiffusionPipeline": "stable_diffusion.StableDiffusion",
    "StableDiffusionXLPipeline": "sdxl.StableDiffusionXL",
    "IFPipeline": "deepfloyd.DeepFloyd",
    "StableDiffusion3Pipeline": "flow_matching.StableDiffusion3",
    "SanaPipeline": "sana.Sana",
    "MVDreamPipeline": "mvdream.MVDream",
}
SHAPES = "shapes_prior.ShapesPrior"  # serves a folder whose gsdistill.json names the shapes world


def leaf_of(pipeline: str) -> type[Pretrained]:
    """The class that serves a pipeline of :data:`FAMILIES`."""
    return _class(FAMILIES[pipeline])


def _class(place: str) -> type[Pretrained]:
    module, _, leaf = place.partition(".")
    return getattr(importlib.import_module(f"gsdistill.prior.{module}"), leaf)


def family_of(folder: Path) -> type[Pretrained]:
    """The class that serves a folder; one without model_index.json is of the Stable Diffusion kind.

    Raises:
        BadFile: its index cannot be read, or names a pipeline of no family that we know.
    """
    name = str(_index(folder).get("_class_name", "StableDiffusionPipeline"))
    if name not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise BadFile(f"{folder / 'model_index.json'}: {name} is of no family that can be a prior; known: {known}")
    shapes = name == "StableDiffusionPipeline" and read_model_card(str(folder), folder.name).world == "shapes"
    return _class(SHAPES) if shapes else leaf_of(name)


def group_of(name_or_path: str) -> int:
    """How many views a prior sees together, by its card, folder or class; 1 where only its weights tell.

    Raises:
        ConfigError, ModelNotFound: as :func:`gsdistill.prior.cards.find`. BadFile: as :func:`family_of`. ConfigError:
            as :func:`gsdistill.prior.own.load_class`, of one from outside.
    """
    if is_outside(name_or_path):
        return load_class(name_or_path).view_group
    card = cards().get(name_or_path)
    if card and not card.shipped:
        return leaf_of(card.pipeline).view_group
    source = Path(find(name_or_path)[0])
    return family_of(source).view_group if source.is_dir() else 1


def needed_parts(folder: Path, own_vae: bool = True) -> tuple[str, ...]:
    """The parts that a folder must have, read from its model_index.json and gsdistill.json alone.

    They are those of its family and all text encoders and tokenizers that the index names, such as SD3's T5; no ``vae``
    where images are folded into channels, or where another one serves (``own_vae`` False).

    Raises:
        BadFile: as :func:`family_of`, and where gsdistill.json cannot be read.
    """
    texts = [
        part
        for part, kind in _index(folder).items()
        if part.startswith(("text_encoder", "tokenizer")) and kind != [None, None]
    ]
    parts = dict.fromkeys([*family_of(folder).PARTS, *texts])
    if not own_vae or read_model_card(str(folder), folder.name).encoder != "vae":
        parts.pop("vae", None)
    return tuple(parts)


def _index(folder: Path) -> dict[str, Any]:
    path = folder / "model_index.json"
    if not path.is_file():
        return {}
    index = read_json(path)
    if "_class_name" not in index:
        raise BadFile(f"{path} is not the index of a diffusers model: it has no _class_name")
    return index
