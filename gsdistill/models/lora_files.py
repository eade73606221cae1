"""LoRA files (arXiv 2106.09685) added to a frozen network or text encoder for good: W + scale (alpha / rank) B A.

Layers are found in the model by their names, and a layer that the model does not have is an error: no tensor is lost
silently. Tensors that belong to no layer, which some programs leave in a file, are left out with a notice. The sum is
computed in float32 and rounded to the module's precision. The adapters of peft, transformers and diffusers are not
used: they drop layers that they do not know, and they need versions of each other that may not exist.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gsdistill.core.errors import BadFile, ConfigError, few, tell
from gsdistill.core.failing import failing_as
from gsdistill.disk.read import brief, parse_json, read_json
from gsdistill.models.lora_names import PEFT, Home, homes, is_foreign, key_of, place_of

__all__ = ["SUM", "check_lora", "fuse", "read_files"]

SUM = 2  # which sum this is: texts that were kept with another one are encoded again
IN_FOLDERS = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")  # peft's and diffusers'
SETTINGS = "lora_adapter_metadata"  # of peft, which diffusers keeps in a file's header
OF_OTHER_WEIGHTS = ("pissa", "olora", "corda", "loftq", "lora_ga")  # ways to begin that change W too


def fuse(files: Sequence[Path], scale: float, part: str, module: Any, parts: Sequence[str]) -> None:
    """Add ``scale`` times what the ``files`` hold for ``part`` to ``module``, in place.

    The file as a whole is checked together with the network's part.

    Args:
        files: LoRA files (.safetensors) or folders of one; a file without layers of ``part`` changes nothing.
        scale: any finite number; 1 is the strength that the file was trained for, a negative one reverses it.
        part: the module's folder in the diffusers layout: unet, transformer, text_encoder, text_encoder_2.
        module: the frozen network of diffusers, or text encoder of transformers.
        parts: those of the model that take LoRA files, the network first.

    Raises:
        ConfigError: a file does not exist. BadFile: one is no LoRA, is broken, or does not fit the model.
    """
    for path in files:
        file = check_lora(path)
        with failing_as(BadFile, f"the LoRA file {file} does not fit the model's {part}"):
            lora = _open(file, parts[0])
            if part == parts[0]:
                _check_whole(lora, parts, module)
            _add(lora, scale, part, module)
    module.eval().requires_grad_(False)


def check_lora(path: Path) -> Path:
    """Refuse what is no LoRA file, whatever the model; returns the file, which may be in the folder ``path``.

    Raises:
        ConfigError: the file does not exist. BadFile: it is no LoRA, or of a kind that cannot be read.
    """
    from safetensors import safe_open

    file = read_files(path)[0]
    unread = failing_as(BadFile, f"the LoRA file {file} cannot be read as .safetensors")
    with unread, safe_open(file, framework="pt") as opened:
        names = list(opened.keys())
    if not any("lora" in name for name in names):
        raise BadFile(f"{file} is no LoRA file: none of its {len(names)} tensors is named so")
    if any("dora_scale" in name or "lora_magnitude_vector" in name for name in names):
        raise BadFile(f"the LoRA file {file} is of the kind DoRA, which cannot be read")
    return file


def read_files(path: Path) -> list[Path]:
    """The files that are read for one entry of model.lora: its tensors, and peft's settings if they lie beside it.

    Raises:
        ConfigError: the file does not exist, or ``path`` is a folder that holds none or two.
    """
    if path.is_dir():
        inside = [path / name for name in IN_FOLDERS if (path / name).is_file()]
        if len(inside) > 1:
            raise ConfigError(f"model.lora: the folder {path} holds {' and '.join(IN_FOLDERS)}; name one of them")
        if not inside:
            raise ConfigError(f"model.lora: there is no file {' or '.join(IN_FOLDERS)} in the folder {path}")
        path = inside[0]
    if not path.is_file():
        raise ConfigError(f"model.lora: there is no file {path}")
    settings = path.with_name("adapter_config.json")
    return [path, settings] if settings.is_file() else [path]


@dataclass(frozen=True)
class _Layer:
    """A layer as its file names it, and the names of its tensors A, B and alpha, those that are there."""

    part: str
    name: str
    tensors: dict[str, str]


@dataclass(frozen=True)
class _Lora:
    """A file, its layers, its other tensors, and peft's settings of each part."""

    file: Path
    opened: Any  # of safetensors
    layers: list[_Layer]
    others: list[str]
    settings: Mapping[str, Mapping[str, Any]]

    def of(self, part: str) -> list[_Layer]:
        """The layers of a part."""
        return [layer for layer in self.layers if layer.part == part]

    def tensor(self, name: str) -> Tensor:
        """One of the tensors, in float32. Raises BadFile if it holds NaN or infinity."""
        tensor = self.opened.get_tensor(name).float()
        if not bool(tensor.isfinite().all()):
            raise BadFile(f"the LoRA file {self.file} is broken: its tensor {name} holds NaN or infinite values")
        return tensor


def _open(file: Path, network: str) -> _Lora:
    from safetensors import safe_open

    opened = safe_open(file, framework="pt")
    names = list(opened.keys())
    layers: dict[tuple[str, str], _Layer] = {}
    others = []
    for name in names:
        place = place_of(name, network)
        if place is None:
            others.append(name)
            continue
        tensors = layers.setdefault((place.part, key_of(place.layer)), _Layer(place.part, place.layer, {})).tensors
        if place.matrix in tensors:
            raise ValueError(f"it has {place.matrix} of one layer twice: {tensors[place.matrix]} and {name}")
        tensors[place.matrix] = name
    beside = file.with_name("adapter_config.json")
    if any(name.startswith(PEFT) for name in names) and beside.is_file():  # it is of peft, and so are its settings
        settings = dict.fromkeys([part for part, _ in layers], read_json(beside))
    else:
        settings = _settings(file, opened.metadata() or {})
    return _Lora(file, opened, list(layers.values()), others, settings)


def _settings(file: Path, metadata: Mapping[str, str]) -> Mapping[str, Mapping[str, Any]]:
    """Peft's settings by part, as diffusers keeps them in a file's header."""
    by_part: dict[str, Any] = {}
    header = parse_json(metadata.get(SETTINGS) or "{}", f"{SETTINGS} in the header of {file}")
    for name, value in header.items():
        part, _, setting = name.partition(".")
        by_part.setdefault(part, {})[setting] = value
    return by_part


def _check_whole(lora: _Lora, parts: Sequence[str], module: Any) -> None:
    """Refuse a file without effect, or with tensors that no part of the model takes; notices name what is left out."""
    foreign = [name for name in lora.others if is_foreign(name, module)]
    if strange := [name for name in lora.others if name not in foreign]:
        raise ValueError(f"it holds what is of no LoRA layer, or of another kind of adapter: {few(strange)}")
    homeless = [layer for layer in lora.layers if layer.part not in parts]
    if len(homeless) == len(lora.layers):
        raise ValueError(f"none of its layers is of a {parts[0]} or a text encoder")
    if homeless:
        others = " and ".join(sorted({layer.part for layer in homeless}))
        raise ValueError(f"{len(homeless)} of its layers are of {others}; this model takes them for {', '.join(parts)}")
    ups = [layer.tensors["B"] for layer in lora.layers if "B" in layer.tensors]
    if ups and not any(bool(lora.tensor(name).any()) for name in ups):
        raise BadFile(f"the LoRA file {lora.file} changes nothing: its matrices B are all 0, as before any training")
    if foreign:
        tell(f"the LoRA file {lora.file} also holds what is of no layer and is left out: {few(foreign)}")
    if not lora.settings and any(name.startswith(PEFT) for layer in lora.layers for name in layer.tensors.values()):
        tell(f"beside the LoRA file {lora.file} lies no adapter_config.json of peft: alpha / rank is taken to be 1")
    if all("alpha" in layer.tensors and not bool(lora.tensor(layer.tensors["alpha"]).any()) for layer in lora.layers):
        tell(f"the LoRA file {lora.file} changes nothing: its alphas are all 0")


def _add(lora: _Lora, scale: float, part: str, module: Any) -> None:
    layers = lora.of(part)
    by_key = homes(module) if layers else {}
    if halves := [layer.name for layer in layers if not {"A", "B"} <= layer.tensors.keys()]:
        downs, ups = (sum(matrix in layer.tensors for layer in layers) for matrix in "AB")
        raise ValueError(f"it has {downs} matrices A and {ups} matrices B, and not both for {few(halves)}")
    placed = [(layer, home) for layer in layers if (home := by_key.get(key_of(layer.name)))]
    taken: dict[str, str] = {}
    for layer, home in placed:
        _check_size(lora, layer, [module.get_submodule(path) for path in home.paths])
        if twice := [taken[path] for path in home.paths if path in taken]:
            raise ValueError(f"{twice[0]} and {layer.name} are the same layer of this model")
        taken |= dict.fromkeys(home.paths, layer.name)
    if missing := [layer.name for layer in layers if key_of(layer.name) not in by_key]:
        raise ValueError(f"{len(missing)} of its {len(layers)} layers are not in this model: {few(missing)}")
    for layer, home in placed:
        _add_layer(lora, layer, scale, module, home)


def _check_size(lora: _Lora, layer: _Layer, inner: Sequence[Any]) -> None:
    """Refuse matrices whose product has not the size of the layers' weights, stacked by rows."""
    down, up = (lora.opened.get_slice(layer.tensors[matrix]).get_shape() for matrix in "AB")
    rank, rows, whole = (down or [0])[0], sum(len(one.weight) for one in inner), list(inner[0].weight.shape)
    fits = _plain(down) == [rank, *_plain(whole)[1:]] and _plain(up) == [rows, rank]
    if not fits or not rank:
        shapes = f"A {down} and B {up} for {[rows, *whole[1:]]}"
        raise ValueError(f"{layer.name}: size mismatch, {shapes}")
    if getattr(inner[0], "groups", 1) > 1:
        raise ValueError(f"{layer.name} is a convolution in groups, to whose weight no LoRA can be added")


@torch.no_grad()
def _add_layer(lora: _Lora, layer: _Layer, scale: float, module: Any, home: Home) -> None:
    down, up = (lora.tensor(layer.tensors[matrix]).flatten(1) for matrix in "AB")
    inner = [module.get_submodule(path).weight for path in home.paths]
    share = scale * _share(lora, layer, len(down))
    if home.swapped:
        up = torch.cat(up.chunk(2)[::-1])
    for weight, own in zip(inner, up.split([len(weight) for weight in inner]), strict=True):
        gain = share * (own.to(weight.device) @ down.to(weight.device)).reshape(weight.shape)
        total = (weight.float() + gain).to(weight.dtype)
        if not bool(total.isfinite().all()) and bool(weight.isfinite().all()):
            kind, cure = str(weight.dtype).removeprefix("torch."), "lower model.lora_scale, or take float32"
            raise ValueError(f"{layer.name}: the sum is larger than {kind} can hold; {cure}")
        weight.copy_(total)


def _share(lora: _Lora, layer: _Layer, rank: int) -> float:
    """Alpha / rank: by the layer's own alpha, by peft's settings, or 1."""
    if "alpha" in layer.tensors:
        alpha = lora.tensor(layer.tensors["alpha"])
        if alpha.numel() != 1:
            raise ValueError(f"{layer.tensors['alpha']} is of shape {list(alpha.shape)}, where one number belongs")
        return alpha.item() / rank
    settings = lora.settings.get(layer.part)
    if settings is None:
        return 1.0
    begun = str(settings.get("init_lora_weights"))
    if begun.lower().startswith(OF_OTHER_WEIGHTS):
        raise ValueError(f"it was trained on weights that {begun} had changed; convert it to an ordinary LoRA")
    declared = _by_layer(settings, "rank_pattern", layer.name, settings.get("r", 8))
    if declared != rank:
        raise ValueError(f"{layer.name}: its matrices are of rank {rank}, its settings say {declared}")
    alpha = _by_layer(settings, "alpha_pattern", layer.name, settings.get("lora_alpha", 8))
    if not isinstance(alpha, (int, float)):  # parse_json gives None for what is not finite
        raise ValueError(f"{layer.name}: lora_alpha = {brief(alpha)} in its settings is no number")
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _by_layer(settings: Mapping[str, Any], patterns: str, layer: str, default: Any) -> Any:
    """The value of the first pattern that matches the end of the layer's name, as in peft."""
    values = settings.get(patterns) or {}
    return next((value for key, value in values.items() if re.match(rf"(.*\.)?({key})$", layer)), default)


def _plain(shape: Sequence[int]) -> list[int]:
    """The shape of a matrix or a convolution, whose kernel of one pixel counts as none."""
    return list(shape[:2] if set(shape[2:]) <= {1} else shape)
