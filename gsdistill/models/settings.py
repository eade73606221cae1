"""How a model is loaded and run, as a user sets it: ``model.`` on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.disk.paths import may_be_path
from gsdistill.models.catalogue import cards

__all__ = ["Layout", "ModelSettings"]

Layout = Literal["auto", "channels_last", "contiguous"]


@dataclass(frozen=True)
class ModelSettings:
    """How a downloaded model is loaded and run."""

    # of the network; auto: half on accelerators, float32 on a CPU, bfloat16 for the shapes prior where that is faster
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    # another autoencoder: its folder, a model's, a .safetensors file, a short name, or a hub id
    vae: str | None = field(default=None, metadata=may_be_path(cards))
    lora: tuple[Path, ...] = ()  # LoRA files (.safetensors), or folders of one, to add to network and text encoders
    lora_scale: float = 1.0  # of all of them; below 0 they change the other way, as sliders are used
    revision: str | None = None  # branch, tag or commit on the hub; none: the card's
    # whose configs and tokenizer serve a checkpoint in one file: a folder, name or hub id
    config: str | None = field(default=None, metadata=may_be_path(cards))
    guidance_rescale: float = bounded(0.0, low=0, high=1)  # phi of CFG rescale; MVDream's is 0.5
    compile: bool = False  # network and encoder through torch.compile: minutes at the start, then faster steps
    graph: bool = False  # on a GPU: record each kind of the network's calls, and replay it without Python
    layout: Layout = "auto"  # of diffusers' networks in memory; auto: channels last on accelerators
    recompute_encoder: bool = False  # compute it again for its gradient, and hold little of it: slower, less memory

    def __post_init__(self) -> None:
        if self.compile and self.graph:
            raise ConfigError("model.compile and model.graph exclude each other: what is compiled is recorded too")
