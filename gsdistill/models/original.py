"""Checkpoints in one file, in the original layout: what they hold, and what they declare.

The names and shapes of its tensors tell the architecture, but not what the network predicts. That is declared by an
empty tensor called ``v_pred``, or in the metadata; another one, ``ztsnr``, declares that the last noise level has no
signal (zero terminal SNR, arXiv 2305.08891). If nothing is declared, the configs that complete the file decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gsdistill.core.errors import BadFile
from gsdistill.core.failing import failing_as
from gsdistill.disk.read import brief
from gsdistill.models.pickles import read_pickle

__all__ = ["NAMES", "Kind", "Original", "look", "read_tensors"]

Kind = Literal["v1", "v2", "xl_base", "mvdream"]  # the first three as diffusers calls them

UNET = "model.diffusion_model."
INPUTS = f"{UNET}input_blocks."  # names that every U-Net has, and no transformer
NAMES = {  # how the names of a part begin
    "unet": UNET,
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0."),
    "text_encoder_2": "conditioner.embedders.1.",
}
OTHER_FILES = {  # how names begin, after UNET or not, and what a file with such names is
    "lora_": "a LoRA, which --model.lora takes",
    "unet.": "a LoRA, which --model.lora takes",
    "down_blocks.": "one part of a model in the names of diffusers; name the folder that it is in the folder unet of",
    "encoder.conv_in.": "an autoencoder, which --model.vae takes",
    "joint_blocks.": "of Stable Diffusion 3, which is read as a folder of diffusers or by a hub id",
    "double_blocks.": "of FLUX, which is of no family that can be a prior",
}
SAYS = ("modelspec.prediction_type", "modelspec.predict_key", "prediction_type", "modelspec.architecture")  # metadata
PREDICTIONS = {  # the values in the metadata
    "v": "v_prediction", "v_prediction": "v_prediction", "stable-diffusion-v2-768-v": "v_prediction",
    "epsilon": "epsilon", "eps": "epsilon", "stable-diffusion-v2-512": "epsilon",
}  # fmt: skip
# NovelAI's names of the first text encoder, as older versions of transformers had them, lack one word.
OLD_NAMES = re.compile(r"(cond_stage_model\.transformer\.)(?=(embeddings|encoder|final_layer_norm)\.)")


@dataclass(frozen=True)
class Original:
    """A checkpoint in one file."""

    file: Path
    kind: Kind
    has_vae: bool
    scheduler: Mapping[str, Any]  # what it declares, as in a scheduler's config of diffusers

    @property
    def prediction(self) -> str | None:
        """What the network predicts, if the file declares it."""
        return self.scheduler.get("prediction_type")


def look(file: Path) -> Original:
    """Find out what a checkpoint holds and declares, without reading the tensors of a .safetensors.

    Raises:
        BadFile: it cannot be read, is a pickle of more than tensors, or is of a kind that cannot be a prior.
    """
    heads, metadata = _read_heads(file)
    if any("camera_embed." in name for name in heads):
        return Original(file, "mvdream", False, {})
    kind = _kind(file, heads)
    return Original(file, kind, any(name.startswith(NAMES["vae"]) for name in heads), _says(file, heads, metadata))


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint.

    Raises:
        BadFile: as :func:`look`.
    """
    from safetensors.torch import load_file

    if is_safetensors(file):
        with failing_as(BadFile, f"{file} is not a whole .safetensors file"):
            state = load_file(file)
    else:
        state = _read_unpickled(file, "cpu")
    return {OLD_NAMES.sub(r"\1text_model.", name): value for name, value in state.items()}


def is_safetensors(file: Path) -> bool:
    """Whether a file is a .safetensors, by its name, and not a pickle."""
    return file.suffix.lower() == ".safetensors"


def _kind(file: Path, heads: Mapping[str, Tensor]) -> Kind:
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    unet = any(name.startswith(INPUTS) for name in heads)
    names = [] if unet else [name.removeprefix(UNET) for name in heads]
    other = next((what for start, what in OTHER_FILES.items() for name in names if name.startswith(start)), None)
    if other:
        raise BadFile(f"{file} is {other}")
    with failing_as(BadFile, f"{file} has a tensor of a shape that no Stable Diffusion checkpoint has"):
        kind = infer_diffusers_model_type(heads)
    for known in ("v1", "v2", "xl_base"):  # diffusers says v1 for everything that it does not know
        if kind == known and unet:
            return known
        if kind == known:
            raise BadFile(
                f"{file} is no Stable Diffusion checkpoint in the original layout: no name in it begins with {INPUTS}"
            )
    raise BadFile(
        f"{file} is a checkpoint of the kind {kind}; only Stable Diffusion 1, 2 and XL can be priors in one file"
    )


def _says(file: Path, heads: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Any]:
    """What the file declares about its schedule and prediction, as in a scheduler's config."""
    if "edm_vpred.sigma_max" in heads:
        raise BadFile(f"{file} is of continuous noise levels (EDM: edm_vpred.sigma_max), which no prior here has")
    ends = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if "ztsnr" in heads else {}
    if "v_pred" in heads:
        return {"prediction_type": "v_prediction", **ends}
    for key in SAYS:
        value = metadata.get(key, "").strip().lower()
        if value in PREDICTIONS:
            return {"prediction_type": PREDICTIONS[value], **ends}
        if value not in ("", "none") and key != "modelspec.architecture":
            raise BadFile(f"{file} says that it predicts {brief(value)} ({key}), where v and epsilon are known")
    return ends


def _read_heads(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a checkpoint without their values, and its metadata."""
    from safetensors import safe_open

    if not is_safetensors(file):
        return _read_unpickled(file, "meta"), {}
    with failing_as(BadFile, f"{file} is not a whole .safetensors file"), safe_open(file, framework="pt") as opened:
        shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118 - no mapping
        metadata = opened.metadata() or {}
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, metadata


def _read_unpickled(file: Path, device: str) -> dict[str, Tensor]:
    """The tensors of a pickled checkpoint."""
    state = read_pickle(file, device)
    if isinstance(state, dict) and "state_dict" in state:
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise BadFile(f"{file} holds a {type(state).__name__}, not the named tensors of a checkpoint")
    return {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}
