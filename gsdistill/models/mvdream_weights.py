"""MVDream's published U-Net for diffusers: its config, and the conversion of its checkpoint's names.

The network is Stable Diffusion 2.1's U-Net at 256 pixels with one more part, ``camera_embed``: Linear(16, 1280), SiLU,
Linear(1280, 1280) of the camera's matrix, added to the time embedding. That is a class embedding of type "projection".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from gsdistill.core.errors import BadFile, few

__all__ = ["UNET_CONFIG", "convert_unet"]

# Of the release sd-v2.1-base-4view; what is not named here is diffusers' default.
UNET_CONFIG: Mapping[str, Any] = {
    "sample_size": 32,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),  # really the numbers of heads, of 64 channels each
    "use_linear_projection": True,
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 16,
}

PREFIX = "model.diffusion_model."  # of the U-Net's names, in a checkpoint that holds the other parts too
CAMERA = {"camera_embed.0.": "class_embedding.linear_1.", "camera_embed.2.": "class_embedding.linear_2."}


def convert_unet(state_dict: Mapping[str, Tensor], config: Mapping[str, Any] = UNET_CONFIG) -> dict[str, Tensor]:
    """The weights of UNet2DConditionModel(**config) from an MVDream checkpoint in the original layout.

    If names begin with ``model.diffusion_model.``, all others are left out, for they are of other parts.

    Raises:
        BadFile: a name is not understood or missing, or a tensor has another shape than the network's.
    """
    unet = {name.removeprefix(PREFIX): value for name, value in state_dict.items() if name.startswith(PREFIX)}
    unet = unet or dict(state_dict)
    names, shapes = _original_names(unet, config["layers_per_block"]), _shapes(config)
    faults = {
        "not understood": unet.keys() - {names[name] for name in names.keys() & shapes.keys()},
        "missing": shapes.keys() - names.keys(),
        "of another shape": {name for name in names.keys() & shapes.keys() if unet[names[name]].shape != shapes[name]},
    }
    if lines := [f"{kind}: {few(sorted(names), 5)}" for kind, names in faults.items() if names]:
        raise BadFile(f"the checkpoint is not that of MVDream's U-Net in the original layout; {'; '.join(lines)}")
    return {name: unet[names[name]] for name in shapes}


def _original_names(unet: Collection[str], layers: int) -> dict[str, str]:
    """The original name of each diffusers name, as far as ``unet`` has it."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    # the conversion only moves values, so that it can move the names themselves
    names = convert_ldm_unet_checkpoint({PREFIX + name: name for name in unet}, {"layers_per_block": layers})
    for theirs, ours in CAMERA.items():
        names |= {ours + name.removeprefix(theirs): name for name in unet if name.startswith(theirs)}
    return names


def _shapes(config: Mapping[str, Any]) -> dict[str, torch.Size]:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return {name: value.shape for name, value in UNet2DConditionModel(**config).state_dict().items()}
