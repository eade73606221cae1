"""Parts of a model from its folder: only safetensors, no network, and any failure in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from gsdistill.errors import BadFile, ModelNotFound

__all__ = ["load_model", "load_part", "pick_class"]

T = TypeVar("T")


def load_part(loader: Callable[..., T], folder: Path, part: str, **options: Any) -> T:
    """What ``loader``, a ``from_pretrained`` of diffusers or transformers, makes of ``folder``/``part``.

    Raises:
        ModelNotFound: it cannot be loaded; the message has the library's reason in one line.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # parts load in moments; the run has a bar of its own
    try:
        return loader(str(folder), subfolder=part, local_files_only=True, **options)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelNotFound(f"cannot load {folder / part}: {reason}") from error


def load_model(kind: Any, folder: Path, part: str, dtype: torch.dtype, device: torch.device) -> Any:
    """A frozen network of class ``kind`` of diffusers or transformers; safetensors only.

    Raises:
        ModelNotFound: as :func:`load_part`.
    """
    ours = {"low_cpu_mem_usage": False} if kind.__module__.startswith("diffusers") else {}
    name = "torch_dtype" if ours else "dtype"  # the libraries disagree
    model = load_part(kind.from_pretrained, folder, part, **{name: dtype}, use_safetensors=True, **ours)
    return model.to(device).eval().requires_grad_(False)


def pick_class(folder: Path, part: str, allowed: Sequence[str]) -> str:
    """The one of ``allowed`` that a diffusers part says it is (``_class_name`` of its config).

    Raises:
        ModelNotFound: there is no config. BadFile: it is not JSON, or names another class.
    """
    found = sorted((folder / part).glob("*config.json"))
    if not found:
        raise ModelNotFound(f"{folder} lacks {Path(part) / 'config.json'}")
    try:
        name = str(json.loads(found[0].read_text(encoding="utf-8"))["_class_name"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadFile(f"{found[0]} is not the config of a diffusers part: {error}") from error
    if name not in allowed:
        raise BadFile(f"{found[0]} is of class {name}, where {' or '.join(allowed)} belongs")
    return name
