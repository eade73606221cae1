"""The families of models as a table: for each pipeline, the class that serves it and the parts that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsdistill.core.errors import BadFile
from gsdistill.disk.read import read_json
from gsdistill.models.card import read_model_card

__all__ = ["FAMILIES", "OF_A_WORLD", "Family", "family_of", "needed_parts"]


@dataclass(frozen=True)
class Family:
    """Models of one kind."""

    leaf: str  # the module and the class in gsdistill.prior.families that serve them
    parts: tuple[str, ...]  # folders of the layout that every one of them has; the first is the network

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.leaf.rpartition(".")[2]

    @property
    def others(self) -> tuple[str, ...]:
        """The parts other than the network."""
        return self.parts[1:]


_CLIP = ("vae", "text_encoder", "tokenizer", "scheduler")
_TWO_CLIPS = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "scheduler")
FAMILIES = {
    "StableDiffusionPipeline": Family("stable_diffusion.StableDiffusion", ("unet", *_CLIP)),
    "StableDiffusionXLPipeline": Family("sdxl.StableDiffusionXL", ("unet", *_TWO_CLIPS)),
    "IFPipeline": Family("deepfloyd.DeepFloyd", ("unet", "text_encoder", "tokenizer", "scheduler")),
    "StableDiffusion3Pipeline": Family("stable_diffusion_3.StableDiffusion3", ("transformer", *_TWO_CLIPS)),
    "SanaPipeline": Family("sana.Sana", ("transformer", *_CLIP)),
    "MVDreamPipeline": Family("mvdream.MVDream", ("unet", *_CLIP)),
}
OF_A_WORLD = Family("small.prior.WorldPrior", ("unet", *_CLIP))  # where gsdistill.json names a world


def family_of(folder: Path) -> Family:
    """The family of a folder; one without model_index.json is of the Stable Diffusion kind.

    Raises:
        BadFile: its index cannot be read, or names a pipeline of no family that we know.
    """
    name = str(_index(folder).get("_class_name", "StableDiffusionPipeline"))
    if name not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise BadFile(f"{folder / 'model_index.json'}: {name} is of no family that can be a prior; known: {known}")
    world = read_model_card(str(folder), folder.name).world if name == "StableDiffusionPipeline" else None
    return OF_A_WORLD if world else FAMILIES[name]


def needed_parts(folder: Path, own_vae: bool = True) -> tuple[str, ...]:
    """The parts that a folder must have, by its model_index.json and gsdistill.json.

    They are those of its family and all text encoders and tokenizers that the index names, such as SD3's T5; without
    ``vae`` if images are folded into channels, or if another autoencoder is used (``own_vae`` False).

    Raises:
        BadFile: as :func:`family_of`, or gsdistill.json cannot be read.
    """
    texts = [
        part
        for part, kind in _index(folder).items()
        if part.startswith(("text_encoder", "tokenizer")) and kind != [None, None]
    ]
    parts = dict.fromkeys([*family_of(folder).parts, *texts])
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
