"""Parts of a model from its folder: only safetensors, no network, and any failure in one sentence."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from gsdistill.errors import BadFile, ModelNotFound
from gsdistill.prior.layout import weight_files

__all__ = ["load_model", "load_part", "pick_class", "quiet"]

T = TypeVar("T")


def load_part(loader: Callable[..., T], folder: Path, part: str, **options: Any) -> T:
    """What ``loader``, a ``from_pretrained`` of diffusers or transformers, makes of ``folder``/``part``.

    Raises:
        ModelNotFound: it cannot be loaded; the message has the library's reason in one line.
    """
    try:
        with quiet():
            return loader(str(folder), subfolder=part, local_files_only=True, **options)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelNotFound(f"cannot load {folder / part}: {reason}") from error


def load_model(kind: Any, folder: Path, part: str, dtype: torch.dtype, device: torch.device) -> Any:
    """A frozen network of class ``kind`` of diffusers or transformers, from safetensors: full or fp16, what is there.

    Raises:
        ModelNotFound: as :func:`load_part`. BadFile: the part is of another class, or has not all of its weights, which
            the libraries would fill with random numbers.
    """
    ours = {"low_cpu_mem_usage": False} if kind.__module__.startswith("diffusers") else {}
    if ours and (named := _class_name(folder / part)) not in (None, kind.__name__):
        raise BadFile(f"{folder / part / 'config.json'} is of class {named}, where {kind.__name__} belongs")
    files = weight_files([path.name for path in (folder / part).glob("*")], dtype.itemsize == 2)
    options = {"variant": files.variant if files else None, "use_safetensors": True, "output_loading_info": True}
    name = "torch_dtype" if ours else "dtype"  # the libraries disagree
    model, report = load_part(kind.from_pretrained, folder, part, **{name: dtype}, **options, **ours)
    if missing := sorted(report["missing_keys"]):
        raise BadFile(
            f"{folder / part} has no weights for {len(missing)} tensors of {kind.__name__}, such as {missing[0]}: "
            "they are of another model, or not all there"
        )
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


@contextmanager
def quiet() -> Iterator[None]:
    """Keep diffusers and transformers from their own bars and reports: what matters of them is an error of ours."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # parts load in moments; the run has a bar of its own
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _class_name(folder: Path) -> str | None:
    """What the config of a part of diffusers says, or None where the loader will say what is wrong with it."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError):
        return None
