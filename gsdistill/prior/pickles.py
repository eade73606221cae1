"""PyTorch's own files: archives of a pickle and the numbers of its tensors. Nothing but tensors is ever built of them.

Bare pickles, as PyTorch wrote them before 1.6 (2020), say themselves how much memory to take; archives with compressed
members, which PyTorch does not write, could hold a thousand times what they weigh. Both are refused.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from gsdistill.errors import BadFile

__all__ = ["read_pickle"]


def read_pickle(path: Path, device: str = "cpu") -> Any:
    """What a file holds, its tensors on ``device``; on ``meta`` they have no values, and none are read.

    Raises:
        BadFile: it is no such archive, is cut or damaged, or a pickle of more than tensors, which is not run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            odd = [item.filename for item in archive.infolist() if item.compress_type != zipfile.ZIP_STORED]
        if odd:
            raise BadFile(f"{path} is compressed ({odd[0]!r}), as PyTorch's files are not, and is not read")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a pickle's protocol; what it holds is what decides
            return torch.load(path, map_location=device, weights_only=True, mmap=True)
    except BadFile:
        raise
    except Exception as error:  # the library raises anything on a broken file
        raise BadFile(f"{path} {_complaint(error)}") from error


def _complaint(error: Exception) -> str:
    """Say why torch did not unpickle; its own message also tells how to do so unsafely."""
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and wanted:
        return (
            f"is a pickle of more than tensors ({wanted[1]}), which could run any code, and is not read; convert it to "
            ".safetensors where you trust it"
        )
    reason = "it holds more than tensors" if isinstance(error, pickle.UnpicklingError) else _first_line(error)
    return f"cannot be read as a checkpoint of PyTorch: {reason}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
