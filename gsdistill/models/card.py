"""The card of a model folder, gsdistill.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gsdistill.core.errors import ConfigError, did_you_mean
from gsdistill.core.ranges import bounded
from gsdistill.disk.read import read_json
from gsdistill.settings.config import from_file
from gsdistill.settings.registry import names

__all__ = ["CameraCard", "ModelCard", "Prediction", "check_world", "read_model_card"]

Prediction = Literal["epsilon", "v_prediction", "sample", "flow_prediction"]  # what a network can predict


@dataclass(frozen=True)
class CameraCard:
    """The camera features of a model, and the cameras it was trained on: degrees and world units."""

    features: Literal["fourier"]
    distance: float = bounded(above=0)
    fov: float = bounded(above=0, below=180)
    elevation: tuple[float, float] = bounded(low=-90, high=90)
    azimuth_frequencies: tuple[int, ...] = ()
    elevation_frequencies: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelCard:
    """The contents of gsdistill.json."""

    name: str
    encoder: Literal["vae", "unshuffle"] = "vae"
    factor: int = bounded(1, low=1, high=64)
    licence: str = "unknown"
    world: str | None = None  # the closed world of its prompts, a package of gsdistill.worlds
    camera: CameraCard | None = None
    pooled: bool = False  # whether the network is told the mean of the text's tokens beside the camera
    learnt: tuple[str, ...] = ()  # the names of the world's things that it draws well; empty: all

    def __post_init__(self) -> None:
        check_world(self.world)


def check_world(world: str | None) -> None:
    """Refuse a world that is not a package of gsdistill.worlds. Raises ConfigError."""
    if world not in (None, *(known := names("gsdistill.worlds"))):
        hint = did_you_mean(str(world), known)
        raise ConfigError(f"world = '{world}' is not known.{hint} Allowed: {', '.join(known)}")


def read_model_card(source: str, name: str) -> ModelCard:
    """Read gsdistill.json in the folder ``source``; without the file, the card of a plain latent model called ``name``.

    Raises:
        BadFile: the file cannot be read, or a value in it is not allowed.
    """
    path = Path(source) / "gsdistill.json"
    if not path.is_file():
        return ModelCard(name=name)
    return from_file(ModelCard, read_json(path), path)
