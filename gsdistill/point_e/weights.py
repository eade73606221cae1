"""Point-E's weight files: downloaded once, read without running any code in them, and checked name by name."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gsdistill.core.errors import BadFile, ModelNotFound, first_line
from gsdistill.core.failing import failing_as
from gsdistill.disk.places import cache_folder
from gsdistill.disk.write import atomic_path
from gsdistill.models.hub import is_offline
from gsdistill.models.pickles import read_pickle

__all__ = ["ADDRESS", "fetch", "fill", "read_weights"]

ADDRESS = "https://openaipublic.azureedge.net/main/point-e/"
_SECONDS = 30.0
_BLOCK = 1 << 20


def fetch(name: str) -> Path:
    """Return the path of the published file ``name`` in the cache folder; download it if it is not there.

    Raises:
        ModelNotFound: it is not there, and the network is forbidden or the download fails.
        OutputError: the cache folder cannot be written.
    """
    path = cache_folder("point-e", name)
    if path.is_file():
        return path
    advice = f"put the file {ADDRESS}{name} into {path.parent}, or name a folder that holds it"
    if is_offline():
        raise ModelNotFound(
            f"the Point-E weights {name} are not in {path.parent}, and HF_HUB_OFFLINE or --offline "
            f"forbids fetching them: {advice}"
        )
    try:
        response = urllib.request.urlopen(ADDRESS + name, timeout=_SECONDS)
    except (OSError, http.client.HTTPException) as error:
        raise ModelNotFound(f"cannot fetch the Point-E weights {name} ({_reason(error)}): {advice}") from error
    with response, atomic_path(path) as draft, draft.open("wb") as file:
        expected = response.headers.get("Content-Length")
        while block := _read_block(response, name, advice):
            file.write(block)
        if expected is not None and file.tell() != int(expected):
            raise ModelNotFound(
                f"the download of {name} ended after {file.tell()} of {expected} bytes: try again, or {advice}"
            )
    return path


def _read_block(response: Any, name: str, advice: str) -> bytes:
    try:
        return response.read(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise ModelNotFound(f"the download of {name} broke off ({_reason(error)}): try again, or {advice}") from error


def _reason(error: Exception) -> str:
    """Return the first sentence of an error, or of the reason that urllib's error wraps."""
    reason = getattr(error, "reason", error)
    return first_line(reason if isinstance(reason, Exception) else error).split(". ")[0]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the named tensors of a ``.safetensors`` file or a PyTorch ``.pt``, which may hold nothing but tensors.

    Raises:
        ModelNotFound: there is no such file. BadFile: it is broken, is no state dict, or as :func:`read_pickle`.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        raise ModelNotFound(f"the Point-E weights {path} are missing")
    with failing_as(BadFile, f"{path} is cut or damaged", "; delete it and fetch it again"):
        plain = load_file(path) if path.suffix.lower() == ".safetensors" else read_pickle(path)
    if not isinstance(plain, Mapping) or not all(isinstance(value, Tensor) for value in plain.values()):
        raise BadFile(f"{path} is not a state dict: it must map names to tensors")
    return dict(plain)


def fill(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Give ``model`` all its parameters, in float32; ``path`` is named in errors.

    Raises:
        BadFile: a name is missing or unknown, a shape differs, or a value is not finite; the first such name is given.
    """
    own = model.state_dict()
    kind = type(model).__name__
    odd = [(name, "lacks") for name in own if name not in weights]
    odd += [(name, "has an unknown") for name in weights if name not in own]
    if odd:
        name, what = odd[0]
        rest = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise BadFile(f"{path} is not for this {kind}: it {what} '{name}'{rest}")
    for name, value in weights.items():
        if value.shape != own[name].shape:
            raise BadFile(
                f"{path} is not for this {kind}: '{name}' is {list(value.shape)}, not {list(own[name].shape)}"
            )
        if value.layout is not torch.strided or not value.is_floating_point() or not value.float().isfinite().all():
            raise BadFile(f"{path}: '{name}' holds values that are not finite numbers")
    model.load_state_dict({name: value.float() for name, value in weights.items()}, strict=True, assign=True)
