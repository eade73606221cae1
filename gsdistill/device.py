"""The one place where the device of a run is chosen."""

from __future__ import annotations

import platform

import torch

from gsdistill.errors import ConfigError, did_you_mean

__all__ = ["choose", "describe"]

CHOICES = ("auto", "cpu", "cuda", "mps")


def choose(name: str) -> torch.device:
    """Return the device called ``name``: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    ``auto`` is a CUDA device where there is one, else the CPU; it never takes ``mps``: no renderer of ours runs there.

    Raises:
        ConfigError: no such kind of device, or this machine has none.
    """
    kind, _, index = name.partition(":")
    if kind not in CHOICES or not (index.isdecimal() if ":" in name else True) or (index and kind != "cuda"):
        raise ConfigError(
            f"device = '{name}' is not a device.{did_you_mean(name, CHOICES)} Allowed: auto, cpu, cuda, cuda:1, mps"
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto":
        return torch.device("cuda" if count else "cpu")
    if kind == "cuda" and int(index or 0) >= count:
        raise ConfigError(f"device = '{name}': CUDA devices of this machine: {count}; use --device auto or cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device = 'mps': this machine has no Apple GPU; use --device auto or cpu")
    return torch.device(name)


def describe(device: torch.device) -> str:
    """Return what a person calls a device: its name and memory, or the processor's architecture."""
    if device.type != "cuda":
        return f"{device.type} ({platform.machine()})"
    properties = torch.cuda.get_device_properties(device)
    return f"{device} ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)"
