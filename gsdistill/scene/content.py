"""What a splat file holds as it stands, before its axes are turned and its values are checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from gsdistill.core.errors import BadFile, did_you_mean, tell
from gsdistill.core.frames import FRAMES, Frame
from gsdistill.core.structs import Gaussians, RenderOptions
from gsdistill.scene.limits import logits
from gsdistill.scene.sound import ensure_sound
from gsdistill.scene.turn import from_frame
from gsdistill.settings.config import from_file

__all__ = [
    "FRAME_KEY",
    "OPTIONS_KEY",
    "OTHERS",
    "Content",
    "axes_of",
    "completed",
    "described",
    "frame_called",
    "frame_of",
    "from_arrays",
    "options_called",
    "options_of",
]

FRAME_KEY = "gsdistill_frame"  # the key of the axes in a format's JSON
OPTIONS_KEY = "gsdistill_renderer"  # the key of the render options that are not the usual ones
OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])  # places of a quaternion besides its largest component


@dataclass(frozen=True)
class Content:
    """A splat in the axes of its file; values may be NaN or infinite."""

    path: Path
    gaussians: Gaussians
    named: Frame | None  # the axes that the file names
    usual: Frame  # the axes that a file of its kind has where it names none

    def axes(self, frame: Frame | None) -> Frame:
        """The axes of the file, as :func:`axes_of` decides."""
        return axes_of(self.path, self.named, frame, self.usual)

    def assumption(self, frame: Frame | None, flag: str) -> str:
        """One line that says which axes are assumed, and which flag changes that; empty where they are known."""
        if frame or self.named:
            return ""
        axes = {
            "world": f"gsdistill's (z up); {flag} rdf is for files of most other programs",
            "rdf": f"right, down, front (rdf), as is usual with its format; {flag} is for others",
            "y-up": f"left, up, front (y-up), as is usual with its format; {flag} is for others",
        }
        return f"{self.path} does not name its axes: taken to be in {axes[self.usual]}"

    def resolve(self, frame: Frame | None, flag: str, clean: bool = False) -> Gaussians:
        """Return what :meth:`in_world` does; if the axes are assumed, a Notice says so and names the ``flag``."""
        if line := self.assumption(frame, flag):
            tell(line)
        return self.in_world(frame, clean)

    def in_world(self, frame: Frame | None = None, clean: bool = False) -> Gaussians:
        """Return the Gaussians in our world's axes; ``frame`` names the axes of a file that does not.

        ``clean`` is that of :func:`gsdistill.scene.sound.ensure_sound`.

        Raises:
            BadFile: as :meth:`axes` and :func:`gsdistill.scene.sound.ensure_sound`.
        """
        axes = self.axes(frame)
        return from_frame(ensure_sound(self.gaussians, self.path, clean), axes)


def axes_of(path: Path, named: Frame | None, frame: Frame | None, usual: Frame) -> Frame:
    """Return the axes of a file: those that it names, or else ``frame``, the user's, or else the usual ones.

    Raises:
        BadFile: ``frame`` contradicts what the file names.
    """
    if frame and named and frame != named:
        raise BadFile(f"{path}: its header names the frame '{named}', not '{frame}'")
    return named or frame or usual


def frame_called(name: object, path: Path | str) -> Frame:
    """Return the axes of that name; ``path`` is named in errors.

    Raises:
        BadFile: no axes have that name.
    """
    for frame in FRAMES:
        if frame == name:
            return frame
    hint = did_you_mean(str(name), FRAMES)
    raise BadFile(f"{path}: its header names the frame '{name}'.{hint} Allowed: {', '.join(FRAMES)}")


def frame_of(described: object, path: Path | str) -> Frame | None:
    """Return the axes that a format's JSON names, or None if it names none or is no mapping.

    Raises:
        BadFile: as :func:`frame_called`.
    """
    name = described.get(FRAME_KEY) if isinstance(described, Mapping) else None
    return None if name is None else frame_called(name, path)


def described(gaussians: Gaussians, axes: Frame) -> dict[str, Any]:
    """What a format's JSON must say for :func:`frame_of` and :func:`options_of`."""
    unusual = gaussians.options.unusual()
    return {FRAME_KEY: axes, **({OPTIONS_KEY: unusual} if unusual else {})}


def options_called(values: Any, path: Path | str) -> RenderOptions:
    """Return render options from a mapping of names to values; those that it lacks are the usual ones.

    Raises:
        BadFile: it is no mapping, or an option is unknown or out of its range.
    """
    return from_file(RenderOptions, values, path, "renderer")


def options_of(described: object, path: Path | str) -> RenderOptions:
    """Return the render options that a format's JSON has, or the usual ones.

    Raises:
        BadFile: as :func:`options_called`.
    """
    options = described.get(OPTIONS_KEY, {}) if isinstance(described, Mapping) else {}
    return options_called(options, path)


def from_arrays(
    means: Float[np.ndarray, "N 3"],
    quats: Float[np.ndarray, "N 4"],
    scales: Float[np.ndarray, "N 3"],
    alphas: Float[np.ndarray, "N"],
    sh: Float[np.ndarray, "N K 3"],
) -> Gaussians:
    """Return Gaussians in float32 from quaternions w x y z, log standard deviations, opacities 0..1 and harmonics.

    Values beyond float32 become infinite; opacities of 0 and 1 become logits of -20 and 20.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        arrays = [np.array(v, np.float32, order="C") for v in (means, quats, scales, logits(alphas), sh)]
    return Gaussians(*(torch.from_numpy(array) for array in arrays))


def completed(rest: Float[np.ndarray, "N 3"], largest: Int[np.ndarray, "N"]) -> Float[np.ndarray, "N 4"]:
    """Return unit quaternions from three components, in order, and the place 0..3 of the missing one, which is >= 0."""
    quats = np.empty((len(rest), 4))
    np.put_along_axis(quats, OTHERS[largest], rest, axis=1)
    length = np.sqrt(np.clip(1.0 - np.square(rest).sum(axis=1, keepdims=True), 0.0, 1.0))
    np.put_along_axis(quats, largest[:, None], length, axis=1)
    return quats
