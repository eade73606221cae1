"""Checkpoints of a run: every tensor in one safetensors file with a JSON header in its metadata, replaced in one piece.

Held: parameters, Adam moments and step counts, densification statistics, the method's state, the random generator,
counters and seconds by phase, and the resolved settings. Resuming gives the same run as if it had not stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from gsdistill.errors import BadFile
from gsdistill.files import write_bytes
from gsdistill.training.loop import Optimisation

__all__ = ["load", "save"]

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_VERSION = 2  # of the format; 1 had no number, and other phases


def save(run: Optimisation, path: Path, settings: Mapping[str, Any]) -> None:
    """Write ``run`` and its resolved settings, plain values. Raises OutputError as atomic_path does."""
    from safetensors.torch import save as to_bytes

    tensors = {f"param.{key}": value for key, value in run.params.items()}
    for key, optimizer in run.optimizers.items():
        state = optimizer.state[run.params[key]]
        tensors |= {f"adam.{key}.{moment}": state[moment] for moment in _MOMENTS if moment in state}
    tensors |= {f"densify.{key}": value for key, value in run.densifier.state_dict().items()}
    tensors |= {f"method.{key}": value for key, value in run.method_state.items()}
    tensors["generator"] = run.generator.get_state()
    run.clock.settle(wait=True)
    header = {
        "version": _VERSION, "done": run.done, "skipped": run.skipped, "extent": run.extent,
        "seconds": run.clock.seconds, "evaluations": run.evaluations, "settings": settings,
    }  # fmt: skip
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    write_bytes(path, to_bytes(plain, metadata={"gsdistill": json.dumps(header)}))


def load(run: Optimisation, path: Path) -> dict[str, Any]:
    """Bring ``run``, freshly started with the same settings, to the state in ``path``; returns the saved settings.

    Raises:
        BadFile: the file is missing, cut off, not a checkpoint of ours, or one of another version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["gsdistill"])
            if header.get("version", 1) != _VERSION:
                raise BadFile(f"{path} is of another version of gsdistill; start again with --overwrite")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        _fill(run, tensors)
        run.done, run.extent, run.evaluations = header["done"], header["extent"], header["evaluations"]
        run.bad.fill_(header["skipped"])
        run.clock.seconds.update(header["seconds"])
        return header["settings"]
    except FileNotFoundError as error:
        raise BadFile(f"there is no checkpoint {path} to resume from") from error
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise BadFile(f"{path} is not a whole checkpoint of gsdistill: {error}") from error


def _fill(run: Optimisation, tensors: dict[str, Tensor]) -> None:
    device = run.params["means"].device
    for key, optimizer in run.optimizers.items():
        run.params[key] = Parameter(tensors[f"param.{key}"].to(device))
        optimizer.param_groups[0]["params"] = [run.params[key]]
        optimizer.state.clear()
        moments = {m: tensors[f"adam.{key}.{m}"].to(device) for m in _MOMENTS if f"adam.{key}.{m}" in tensors}
        if moments:
            optimizer.state[run.params[key]] = moments
    run.densifier.load_state_dict(_group(tensors, "densify.", device))
    run.method_state = _group(tensors, "method.", device)
    run.generator.set_state(tensors["generator"])


def _group(tensors: dict[str, Tensor], prefix: str, device: torch.device) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value.to(device) for key, value in tensors.items() if key.startswith(prefix)}
