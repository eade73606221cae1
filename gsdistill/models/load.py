"""Loads parts of a model from its folder: safetensors only, without the network; any failure is one sentence."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from gsdistill.core.errors import BadFile, ModelNotFound
from gsdistill.core.failing import failing_as
from gsdistill.core.threads import Turn
from gsdistill.disk.read import brief, read_json
from gsdistill.models.eight_bits import EIGHT_BITS, unpack
from gsdistill.models.layout import weight_files

__all__ = ["AUTOENCODERS", "check_class", "check_finite", "load_model", "load_part", "pick_class", "quiet"]

AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC")

T = TypeVar("T")
_LIBRARIES = Turn()

# The largest sizes in a config: the number of layers; any other size; and a multiple of the weights' largest dimension.
MOST_LAYERS, WIDEST, BEYOND = 128, 2048, 8
OF_NO_SIZE = ("_id", "position", "window")  # in names of numbers that take no memory


def load_part(loader: Callable[..., T], folder: Path, part: str, **options: Any) -> T:
    """What ``loader``, a ``from_pretrained`` of diffusers or transformers, makes of ``folder``/``part``.

    Raises:
        ModelNotFound: it cannot be loaded; the message has the library's reason in one line.
    """
    with failing_as(ModelNotFound, f"cannot load {folder / part}"), quiet():
        return loader(str(folder), subfolder=part, local_files_only=True, **options)


def load_model(kind: Any, folder: Path, part: str, dtype: torch.dtype, device: torch.device) -> Any:
    """A frozen network of class ``kind`` of diffusers or transformers, from safetensors in full precision or fp16.

    Raises:
        ModelNotFound: as :func:`load_part`. BadFile: the part is of another class, lacks weights (the libraries
            would fill them with random numbers), or has weights that are not finite.
    """
    ours = {"low_cpu_mem_usage": False} if kind.__module__.startswith("diffusers") else {}
    if ours:
        check_class(folder / part, kind.__name__)
    files = weight_files([path.name for path in (folder / part).glob("*")], dtype.itemsize == 2)
    names = [name for name in files.names if name.endswith(".safetensors")] if files else []
    _check_sizes(folder / part, names)
    if files and files.variant == EIGHT_BITS:
        return _load_packed(kind, folder / part, names[0]).to(device, dtype).eval().requires_grad_(False)
    options = {"variant": files.variant if files else None, "use_safetensors": True, "output_loading_info": True}
    name = "torch_dtype" if ours else "dtype"  # the libraries disagree
    model, report = load_part(kind.from_pretrained, folder, part, **{name: dtype}, **options, **ours)
    if missing := sorted(report["missing_keys"]):
        raise BadFile(
            f"{folder / part} has no weights for {len(missing)} tensors of {kind.__name__}, such as {missing[0]}: "
            "they are of another model, or not all there"
        )
    model = model.to(device).eval().requires_grad_(False)
    check_finite(model.state_dict(), folder / part)
    return model


def _load_packed(kind: Any, folder: Path, name: str) -> Any:
    """A network of diffusers whose weights are in eight bits."""
    from safetensors.torch import load_file

    with failing_as(BadFile, f"{folder}: its weights and its config.json are not of one network"), quiet():
        model = kind.from_config(kind.load_config(str(folder), local_files_only=True))
        model.load_state_dict(unpack(load_file(folder / name)))
    check_finite(model.state_dict(), folder)
    return model


def check_finite(weights: Mapping[str, Tensor], place: Path | str) -> None:
    """Refuse weights with NaN or infinite numbers. It takes one core 0.1 to 0.2 s for 10^9 bytes.

    Raises:
        BadFile: there are some; the message names ``place`` and the first such tensor.
    """
    floats = {name: value for name, value in weights.items() if value.is_floating_point() and value.numel()}
    ends = {name: torch.stack(value.aminmax()) for name, value in floats.items() if not value.is_meta}
    if bad := [name for name, pair in ends.items() if not pair.isfinite().all()]:
        half = floats[bad[0]].dtype == torch.float16 and not ends[bad[0]].isnan().any()
        cure = "; if they are sound, float16 is too small for them: take another --model.precision" if half else ""
        raise BadFile(f"{place}: {len(bad)} tensors of its weights hold NaN or infinity, such as {bad[0]}{cure}")


def pick_class(folder: Path, part: str, allowed: Sequence[str]) -> str:
    """The class that a diffusers part declares (``_class_name`` of its config), one of ``allowed``.

    Raises:
        ModelNotFound: there is no config. BadFile: it is not JSON, or names another class.
    """
    configs = sorted((folder / part).glob("*config.json"))
    if not configs:
        raise ModelNotFound(f"{folder} lacks {Path(part) / 'config.json'}")
    name = str(read_json(configs[0]).get("_class_name"))
    if name not in allowed:
        raise BadFile(f"{configs[0]} is of class {name}, where {' or '.join(allowed)} belongs")
    return name


def check_class(folder: Path, name: str) -> None:
    """Refuse a part of diffusers in ``folder`` that declares another class than ``name``.

    Raises:
        BadFile: it declares another one, or its config cannot be read.
    """
    path = folder / "config.json"
    if path.is_file() and (named := read_json(path).get("_class_name")) not in (None, name):
        raise BadFile(f"{path} is of class {named}, where {name} belongs")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and log lines of diffusers and transformers in the block.

    Their settings hold for the whole process, so only one thread at a time is inside such a block.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # parts load in moments; the run has a bar of its own
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    with _LIBRARIES:
        levels = [logger.level for logger in loggers]
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _check_sizes(folder: Path, weights: Sequence[str]) -> None:
    """Refuse a config whose sizes are far beyond those of the weights, before the libraries allocate memory for it.

    Raises:
        BadFile: the first such number.
    """
    from safetensors import safe_open

    largest = 0
    for name in weights:
        with safe_open(folder / name, framework="pt") as file:
            largest = max([largest, *(size for key in file.keys() for size in file.get_slice(key).get_shape())])  # noqa: SIM118
    for name, value in _numbers(read_json(folder / "config.json")):
        most = MOST_LAYERS if "layers" in name else max(WIDEST, BEYOND * largest)
        if value > most and not any(word in name for word in OF_NO_SIZE):
            raise BadFile(f"{folder / 'config.json'}: {name} = {brief(value)}, where its weights have {most} at most")


def _numbers(config: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Every whole number of a config, with the name that it stands under."""
    if isinstance(config, dict):
        for key, value in config.items():
            yield from _numbers(value, key)
    elif isinstance(config, list):
        for value in config:
            yield from _numbers(value, name)
    elif isinstance(config, int):
        yield name, config
