"""What the file of a splat holds, as it stands there: before its axes are turned and its values are looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from gsdistill.core.errors import BadFile, ConfigError, did_you_mean, tell
from gsdistill.core.frames import FRAMES, Frame
from gsdistill.core.structs import Gaussians, RenderOptions
from gsdistill.scene.limits import logits
from gsdistill.scene.sound import sound
from gsdistill.scene.turn import from_frame
from gsdistill.settings.config import from_dict

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

FRAME_KEY = "gsdistill_frame"  # under which a description in JSON names the axes
OPTIONS_KEY = "gsdistill_renderer"  # and those options of drawing that are not the usual ones
OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])  # the components of a quaternion besides its largest


@dataclass(frozen=True)
class Content:
    """A splat in the axes of its file; values may be NaN or infinite."""

    path: Path
    gaussians: Gaussians
    named: Frame | None  # the axes that the file names
    usual: Frame  # the axes that a file of its kind has where it names none

    def axes(self, told: Frame | None) -> Frame:
        """The axes of the file, as :func:`axes_of` finds them."""
        return axes_of(self.path, self.named, told, self.usual)

    def granted(self, told: Frame | None, flag: str) -> str:
        """A line of which axes are taken for granted, with the flag that tells others; empty, where they are known."""
        if told or self.named:
            return ""
        taken = {
            "world": f"gsdistill's (z up); {flag} rdf is for files of most other programs",
            "rdf": f"right, down, front (rdf), as is usual with its format; {flag} is for others",
            "y-up": f"left, up, front (y-up), as is usual with its format; {flag} is for others",
        }
        return f"{self.path} does not name its axes: taken to be in {taken[self.usual]}"

    def told(self, frame: Frame | None, flag: str, clean: bool = False) -> Gaussians:
        """As :meth:`in_world`; where axes are taken for granted a Notice says so, and names the ``flag`` for others."""
        if line := self.granted(frame, flag):
            tell(line)
        return self.in_world(frame, clean)

    def in_world(self, told: Frame | None = None, clean: bool = False) -> Gaussians:
        """Return the Gaussians in our world's axes; ``clean`` as :func:`gsdistill.scene.sound.sound` has it.

        Raises:
            BadFile: as :meth:`axes` and :func:`gsdistill.scene.sound.sound`.
        """
        axes = self.axes(told)
        return from_frame(sound(self.gaussians, self.path, clean), axes)


def axes_of(path: Path, named: Frame | None, told: Frame | None, usual: Frame) -> Frame:
    """Return the axes of a file: as it names them, or else as a person has told, or else as is usual.

    Raises:
        BadFile: what is told contradicts what the file names.
    """
    if told and named and told != named:
        raise BadFile(f"{path}: its header names the frame '{named}', not '{told}'")
    return named or told or usual


def frame_called(name: object, path: Path | str) -> Frame:
    """Return the axes that a file names.

    Raises:
        BadFile: there are none of that name.
    """
    for frame in FRAMES:
        if frame == name:
            return frame
    hint = did_you_mean(str(name), FRAMES)
    raise BadFile(f"{path}: its header names the frame '{name}'.{hint} Allowed: {', '.join(FRAMES)}")


def frame_of(described: object, path: Path | str) -> Frame | None:
    """Return the axes that a mapping of a description names, or None.

    Raises:
        BadFile: as :func:`frame_called`.
    """
    name = described.get(FRAME_KEY) if isinstance(described, Mapping) else None
    return None if name is None else frame_called(name, path)


def described(gaussians: Gaussians, axes: Frame) -> dict[str, Any]:
    """What a description in JSON says for :func:`frame_of` and :func:`options_of`."""
    unusual = gaussians.options.unusual()
    return {FRAME_KEY: axes, **({OPTIONS_KEY: unusual} if unusual else {})}


def options_called(given: Any, path: Path | str) -> RenderOptions:
    """Return the options of drawing that a file gives by name, the others as usual.

    Raises:
        BadFile: they are none.
    """
    try:
        return from_dict(RenderOptions, given, "renderer")
    except ConfigError as error:
        raise BadFile(f"{path}: how it is drawn cannot be read: {error}") from error


def options_of(described: object, path: Path | str) -> RenderOptions:
    """Return the options of drawing that a mapping of a description gives, or the usual ones.

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
    """Return arrays as Gaussians in float32: quaternions w x y z, logarithms of sizes, opacities 0..1, harmonics.

    What float32 does not hold becomes infinite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        arrays = [np.array(v, np.float32, order="C") for v in (means, quats, scales, logits(alphas), sh)]
    return Gaussians(*(torch.from_numpy(array) for array in arrays))


def completed(rest: Float[np.ndarray, "N 3"], largest: Int[np.ndarray, "N"]) -> Float[np.ndarray, "N 4"]:
    """Return unit quaternions from three components in order, and the place of the largest, which is positive."""
    quats = np.empty((len(rest), 4))
    np.put_along_axis(quats, OTHERS[largest], rest, axis=1)
    length = np.sqrt(np.clip(1.0 - np.square(rest).sum(axis=1, keepdims=True), 0.0, 1.0))
    np.put_along_axis(quats, largest[:, None], length, axis=1)
    return quats
