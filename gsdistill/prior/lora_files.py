"""LoRA files (arXiv 2106.09685) added to a frozen network or text encoder for good: W + scale (alpha / rank) B A.

Diffusers reads the names of a file (its own, peft's, and kohya's for U-Nets), peft adds the matrices and is taken out
again. Kohya's files have an alpha for every layer; these go into B before diffusers sees them, for it mistakes layers
where the alphas differ.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from gsdistill.device import out_of_memory
from gsdistill.errors import BadFile, ConfigError

__all__ = ["check", "fuse"]


def fuse(pipeline: str, files: Sequence[Path], scale: float, part: str, module: Any) -> None:
    """Add ``scale`` times what the ``files`` hold for ``part`` to ``module``, in place; no adapter stays.

    Args:
        pipeline: the class of diffusers whose loader reads the files.
        files: LoRA files (.safetensors); those with nothing for ``part`` pass. They are added one by one.
        scale: 0 and more; 1 is the strength that a file was trained for.
        part: the module's folder in the diffusers layout: unet, transformer, text_encoder, text_encoder_2.
        module: the frozen network of diffusers, or text encoder of transformers.

    Raises:
        ConfigError: a file does not exist. BadFile: one is no LoRA, or does not fit the model.
    """
    import diffusers

    loader = getattr(diffusers, pipeline)
    for file in files:
        check(file)
        try:
            with _quiet():
                _add(loader, file, scale, part, module)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, OSError) as error:
            if out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise BadFile(f"the LoRA file {file} does not fit the model's {part}: {reason}") from error
    module.eval().requires_grad_(False)


def check(file: Path) -> None:
    """Refuse what is no LoRA file, whatever the model.

    Raises:
        ConfigError: the file does not exist. BadFile: it is no LoRA, or of a kind that cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise ConfigError(f"model.lora: there is no file {file}")
    try:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise BadFile(f"the LoRA file {file} cannot be read as .safetensors: {error}") from error
    if not any("lora" in name for name in names):
        raise BadFile(f"{file} is no LoRA file: none of its {len(names)} tensors is named so")
    if any("dora_scale" in name for name in names):
        raise BadFile(f"the LoRA file {file} is of the kind DoRA in kohya's layout, which cannot be read")


def _add(loader: Any, file: Path, scale: float, part: str, module: Any) -> None:
    from diffusers.loaders.lora_base import fuse_text_encoder_lora
    from diffusers.utils.peft_utils import recurse_remove_peft_layers
    from peft.tuners.tuners_utils import BaseTunerLayer

    network = getattr(loader, "unet_name", None) or loader.transformer_name
    config = {"unet_config": module.config} if part == network else {}
    state, *alphas, metadata = loader.lora_state_dict(
        str(file), return_lora_metadata=True, use_safetensors=True, **config
    )
    if not any(name.startswith((f"{network}.", "text_encoder")) for name in state):
        raise ValueError(f"none of its layers is of a {network} or a text encoder")
    layers = _layers([name for name in state if name.startswith(f"{part}.") and name.endswith(".weight")])
    if not layers:
        return
    _weigh(state, alphas[0] if alphas else None)
    if part == network:
        module.load_lora_adapter(state, prefix=part, metadata=metadata, low_cpu_mem_usage=True)
    else:
        loader.load_lora_into_text_encoder(state, None, module, part, metadata=metadata, low_cpu_mem_usage=True)
    found = sum(isinstance(layer, BaseTunerLayer) for layer in module.modules())
    if found != layers:
        raise ValueError(f"{layers - found} of its {layers} layers are not in this model")
    if part == network:
        module.fuse_lora(scale)
        module.unload_lora()
    else:
        fuse_text_encoder_lora(module, scale)
        recurse_remove_peft_layers(module)
        module.delete_adapter(list(module.peft_config))


def _layers(names: Sequence[str]) -> int:
    """How many layers the names are of. A matrix without its partner is refused: it would get a random one."""
    downs, ups = (
        sum(any(mark in name for mark in marks) for name in names)
        for marks in (("lora_A.", ".down."), ("lora_B.", ".up."))
    )
    if downs != ups:
        raise ValueError(f"it has {downs} matrices A and {ups} matrices B")
    return ups


def _weigh(state: dict[str, Tensor], alphas: dict[str, float] | None) -> None:
    """Multiply each B by its layer's alpha / rank."""
    for name, alpha in (alphas or {}).items():
        layer = name.removesuffix(".alpha")  # with the name of its A where the layer is of an attention
        up = layer.replace(".down.", ".up.") if ".down." in layer else f"{layer}.lora.up.weight"
        state[up] = state[up] * (alpha / state[up].shape[1])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' warnings, whose causes are told here in one sentence."""
    import diffusers.utils.logging as ours
    import transformers.utils.logging as texts

    before = ours.get_verbosity(), texts.get_verbosity()
    ours.set_verbosity(ours.CRITICAL)
    texts.set_verbosity(texts.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ours.set_verbosity(before[0])
        texts.set_verbosity(before[1])
