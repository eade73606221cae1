"""Checkpoints of a run: one safetensors file with every tensor, and a JSON header in its metadata; written atomically.

A file holds the state of the representation (parameters, moments, statistics), the state of the method, the random
generator, the counters, the seconds by phase, the resolved settings and the versions of packages. Schedules need no
state, since they are functions of the step. A resumed run ends as if it had never stopped.

A file is named after its step, and the last two are kept. Before anything of a run changes, a file is checked against
its CRC-32 and against the run.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gsdistill.core.errors import BadFile
from gsdistill.core.failing import failing_as
from gsdistill.core.ranges import bounded
from gsdistill.disk.texts import utf8_name
from gsdistill.disk.write import write_bytes
from gsdistill.representation.base import unfit
from gsdistill.settings.config import from_dict
from gsdistill.training.distiller import Distiller

__all__ = ["Checkpoint", "drop", "find", "read", "read_last", "restore", "save"]

KEPT = 2  # checkpoints of a run
_VERSION = 5  # of the format; in version 4 the counter ``forgiven`` is called ``pardoned``
_SCENE, _METHOD, _BEHIND = "representation.", "method.", "background."  # prefixes of the names of tensors
_NAME = "gsdistill"  # key of the header in the file's metadata


@dataclass(frozen=True)
class Counters:
    """The counters of a run, each an attribute of Distiller with the same name and meaning."""

    done: int = bounded(low=0)
    skipped: int = bounded(low=0)
    forgiven: int = bounded(low=0)
    evaluations: int = bounded(low=0)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file."""

    path: Path
    counters: Counters
    seconds: Mapping[str, float]  # by phase of a step
    settings: Mapping[str, Any]  # resolved
    versions: Mapping[str, str]  # of packages, by name
    tensors: Mapping[str, Tensor]  # on the CPU, by name


def find(folder: Path) -> list[Path]:
    """The checkpoints in a folder, that of the latest step first."""
    paths = [path for path in folder.glob("step-*.safetensors") if re.fullmatch(r"step-\d{6,}", path.stem)]
    return sorted(paths, key=lambda path: int(path.stem.removeprefix("step-")), reverse=True)


def drop(folder: Path) -> None:
    """Remove every checkpoint, the oldest first, and the folder if it is empty then."""
    for path in reversed(find(folder)):
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def save(run: Distiller, folder: Path, settings: Mapping[str, Any], versions: Mapping[str, str] = {}) -> Path:
    """Write a checkpoint of ``run``, then remove all but the last two; returns the path of the new file.

    ``settings`` are the resolved ones as plain values (for JSON), ``versions`` those of packages by name.

    Raises:
        OutputError: the file cannot be written; all earlier checkpoints remain.
    """
    from safetensors.torch import save as to_bytes

    tensors = {f"{_SCENE}{key}": value for key, value in run.representation.state().items()}
    tensors |= {f"{_METHOD}{key}": value for key, value in run.method_state.items()}
    tensors |= {f"{_BEHIND}{key}": value for key, value in (run.learned.state() if run.learned else {}).items()}
    tensors["generator"] = run.generator.get_state()
    run.clock.settle(wait=True)
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    counters = {name: getattr(run, name) for name in Counters.__dataclass_fields__}
    facts = {"seconds": run.clock.seconds, "settings": settings, "versions": versions}
    text = json.dumps({"version": _VERSION, **counters, **facts})
    path = folder / f"step-{run.done:06d}.safetensors"
    write_bytes(path, to_bytes(plain, metadata={_NAME: text, "crc32": _checksum(plain, text)}))
    for old in find(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def read_last(folder: Path) -> tuple[Checkpoint, list[str]]:
    """Read the latest undamaged checkpoint of a folder; also returns a sentence about each damaged one after it.

    Raises:
        BadFile: the folder has no checkpoint, or all are damaged.
    """
    damaged: list[str] = []
    for path in find(folder):
        try:
            return read(path), damaged
        except BadFile as error:
            damaged.append(str(error))
    raise BadFile(f"{'; '.join(damaged)}; --overwrite starts anew" if damaged else f"{folder} holds no checkpoint")


def read(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        BadFile: the file is missing, cut off, changed since it was written, not a checkpoint of gsdistill, or of a
            version that cannot be read.
    """
    from safetensors import safe_open

    if not path.exists():
        raise BadFile(f"there is no checkpoint {path} to resume from")
    with failing_as(BadFile, f"{path} is not a whole checkpoint of gsdistill"):
        with utf8_name(path) as name, safe_open(name, framework="pt") as file:
            metadata = file.metadata() or {}
            header = json.loads(metadata[_NAME])
            if header["version"] == 4:
                header |= {"version": _VERSION, "forgiven": header["pardoned"]}
            if header["version"] != _VERSION:
                raise BadFile(f"{path} is of another version of gsdistill")
            # Copies, because Windows does not remove a file while tensors use its memory-mapped pages.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        if metadata["crc32"] != _checksum(tensors, metadata[_NAME]):
            raise BadFile(f"{path} is damaged: its content is not what was written")
        counters = from_dict(Counters, {name: header[name] for name in Counters.__dataclass_fields__})
        seconds = {str(name): float(value) for name, value in header["seconds"].items()}
        return Checkpoint(path, counters, seconds, dict(header["settings"]), dict(header["versions"]), tensors)


def restore(run: Distiller, saved: Checkpoint) -> None:
    """Bring ``run``, newly made with the same settings, to the state of a checkpoint.

    Raises:
        BadFile: the checkpoint does not fit ``run``, which then stays as it was.
    """
    generator, method_state, learned = run.generator.get_state(), run.method_state, run.learned
    run.seek(saved.counters.done)
    try:
        _check(run, saved)
    except BadFile:
        run.seek(0)
        run.method_state, run.learned = method_state, learned
        run.generator.set_state(generator)
        raise
    run.generator.set_state(saved.tensors["generator"])
    run.representation.restore(_group(saved.tensors, _SCENE))
    device = run.representation.device
    run.method_state = {key: value.to(device) for key, value in _group(saved.tensors, _METHOD).items()}
    if run.learned:
        run.learned.restore(_group(saved.tensors, _BEHIND))
    for name, value in asdict(saved.counters).items():
        setattr(run, name, value)
    run.clock.seconds.update(saved.seconds)
    run.consistent = True


def _checksum(tensors: Mapping[str, Tensor], header: str) -> str:
    """CRC-32 of the header and of every tensor's name, type, shape and bytes."""
    crc = zlib.crc32(header.encode())
    for name in sorted(tensors):
        value = tensors[name]
        crc = zlib.crc32(f"{name} {value.dtype} {list(value.shape)}".encode(), crc)
        crc = zlib.crc32(value.reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"


def _check(run: Distiller, saved: Checkpoint) -> None:
    """Raise BadFile if the tensors are not those of a run like ``run``."""
    wanted = {f"{_METHOD}{key}": value for key, value in run.method_state.items()}
    wanted |= {f"{_BEHIND}{key}": value for key, value in (run.learned.state() if run.learned else {}).items()}
    wanted["generator"] = run.generator.get_state()
    tensors = {key: value for key, value in saved.tensors.items() if not key.startswith(_SCENE)}
    odd = unfit(tensors, wanted)
    try:
        torch.Generator().set_state(tensors.get("generator", torch.empty(0)))
    except (RuntimeError, TypeError):
        odd.append("generator")
    if misfit := run.representation.misfit(_group(saved.tensors, _SCENE)):
        odd.append(misfit)
    if odd:
        raise BadFile(f"{saved.path} does not fit a run with these settings: {odd[0]}; --overwrite starts anew")


def _group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
