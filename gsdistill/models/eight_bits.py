"""Weights in eight bits: half of what float16 takes, at an error far below that of a trained network's answers.

A row w_o of a matrix, or of a convolution's [out, in k k], is kept as whole numbers q_o = round(w_o / s_o) in -127..127
and one scale s_o = max |w_o| / 127. What has one dimension, such as biases, stays in float16, and so do both ends of a
U-Net: they are few weights, of which most of the error would come (of the shapes prior's noise 1.3 %, against 0.3 %).
Of a weight ``a.weight`` the file has ``a.weight`` in int8 and ``a.weight.scale`` in float32.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gsdistill.core.errors import BadFile, OutputError
from gsdistill.core.failing import failing_as
from gsdistill.disk.write import DRAFT, write_text
from gsdistill.models.layout import weight_files
from gsdistill.models.pipelines import needed_parts

__all__ = ["EIGHT_BITS", "SCALE", "convert_folder", "pack", "unpack", "write_sums"]

NAME = "diffusion_pytorch_model"
EIGHT_BITS = "int8"  # the variant in the name of such a file: diffusion_pytorch_model.int8.safetensors
SCALE = ".scale"
ENDS = ("conv_in.", "conv_out.")


def pack(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a network in eight bits."""
    packed: dict[str, Tensor] = {}
    for name, value in weights.items():
        if value.ndim < 2 or not value.is_floating_point() or name.startswith(ENDS):
            packed[name] = value.half() if value.is_floating_point() else value
            continue
        scale = value.float().flatten(1).abs().amax(1).clamp_min(1e-30) / 127
        packed[name] = (value.float() / _beside(scale, value)).round().to(torch.int8)
        packed[name + SCALE] = scale
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that :func:`pack` packed, in float16.

    Raises:
        KeyError: a weight lacks its scale.
    """
    weights = {}
    for name, value in packed.items():
        if value.dtype == torch.int8:
            weights[name] = (value.float() * _beside(packed[name + SCALE], value)).half()
        elif packed.get(name.removesuffix(SCALE), value).dtype != torch.int8:
            weights[name] = value
    return weights


def _beside(scale: Tensor, value: Tensor) -> Tensor:
    """The scales of rows in a shape that multiplies them."""
    return scale.reshape(-1, *[1] * (value.ndim - 1))


def convert_folder(source: Path, target: Path, packed: bool) -> int:
    """Copy a model's folder with its network's weights in eight bits, or in float16; returns the bytes of ``target``.

    All other files stay as they are, but for SHA256SUMS, which is written anew.

    Raises:
        BadFile: the source has no network's weights that can be read and that float16 holds. OutputError: the target
            exists, lies in the source, or cannot be written.
    """
    from safetensors.torch import load_file, save_file

    network = source / needed_parts(source)[0]
    files = weight_files([path.name for path in network.glob("*")], half=True)
    if files is None or files.missing:
        raise BadFile(f"{network}: there are no weights in safetensors, or not all of them")
    if target.exists() or target.resolve().is_relative_to(source.resolve()):
        raise OutputError(f"{target} exists, or lies in the folder that is copied; choose another folder")
    with failing_as(BadFile, f"{network}: the weights cannot be read"):
        shards = [name for name in files.names if name.endswith(".safetensors")]
        weights = unpack({key: value for name in shards for key, value in load_file(network / name).items()})
    kept = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    if lost := [key for key, value in kept.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise BadFile(f"{network}: {lost[0]} does not fit into float16")

    def leave_out(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(folder) == network and ".safetensors" in name]

    draft = target.parent / f"{DRAFT}{os.urandom(4).hex()}-{target.name}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, draft, ignore=leave_out)
        name = f"{NAME}.{EIGHT_BITS}.safetensors" if packed else f"{NAME}.safetensors"
        save_file(pack(kept) if packed else kept, draft / network.relative_to(source) / name)
        write_sums(draft)
        draft.rename(target)
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if isinstance(error, OSError):
            raise OutputError(f"{target} cannot be written: {error.strerror or error}") from error
        raise
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS of all weights in a folder."""
    lines = []
    for path in sorted(folder.glob("**/*.safetensors")):
        path.chmod(0o644)
        lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n")
    write_text(folder / "SHA256SUMS", "".join(lines))
