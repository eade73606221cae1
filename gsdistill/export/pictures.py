"""Pictures and videos of a scene for people to look at: contact sheet, turntable, preview strip.

Views are rendered a few at a time, so that memory does not grow with their number. Every file appears whole or not at
all. Azimuth 0, the first view, shows the front.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.errors import ConfigError, OutputError
from gsdistill.files import atomic_path
from gsdistill.renderer.base import render
from gsdistill.scene.cameras import look_at_origin, orbit
from gsdistill.structs import Cameras, Gaussians, to_device

__all__ = ["contact_sheet", "preview", "shots", "to_bytes", "turntable"]

Color: TypeAlias = tuple[float, float, float]

WHITE: Color = (1.0, 1.0, 1.0)
UPPER_ROW = 60.0  # degrees, elevation of the second row of a contact sheet
UNDERSIDE = -50.0  # degrees, of its last picture: what no camera of a usual run has seen
PIXELS_AT_ONCE = 1 << 19  # 8 views of 256 px


def contact_sheet(
    gaussians: Gaussians,
    path: Path | str,
    size: int = 128,
    views: int = 8,
    elevation: float = 20.0,
    background: Color = WHITE,
    distance: float = 3.2,
    fov: float = 40.0,
) -> None:
    """Write a PNG of ``views`` columns at equal steps of azimuth, and two rows: at ``elevation`` and from above, at 60.

    The last picture of the second row is from below, at -50, so that the underside is seen too. ``size`` is in pixels
    of one view, angles are in degrees, ``background`` is RGB in 0..1.

    Raises:
        OutputError: the file cannot be written.
    """
    rows, azimuths, ones = [], torch.arange(views) * (360.0 / views), torch.ones(views)
    for last, height in ((elevation, elevation), (UNDERSIDE, UPPER_ROW)):
        elevations = torch.tensor([height] * (views - 1) + [last])
        cameras = look_at_origin(azimuths, elevations, distance * ones, fov * ones, size)
        rows.append(np.concatenate(list(shots(gaussians, cameras, background)), axis=1))
    _save_png(np.concatenate(rows, axis=0), path)


def turntable(
    gaussians: Gaussians,
    path: Path | str,
    size: int = 256,
    frames: int = 90,
    fps: int = 30,
    elevation: float = 20.0,
    background: Color = WHITE,
    distance: float = 3.2,
    fov: float = 40.0,
) -> None:
    """Write an MP4 of one turn around the object: H.264, yuv420p, its index in front, as browsers need it.

    ``size`` is in pixels and even, angles are in degrees, ``background`` is RGB in 0..1.

    Raises:
        ConfigError: ``size`` is odd, which yuv420p cannot hold.
        OutputError: the file cannot be written, or there is no ffmpeg.
    """
    import imageio_ffmpeg

    if size % 2:
        raise ConfigError(f"a video of size {size} cannot be encoded; the size must be even, such as {size + 1}")
    _check_ffmpeg(path)
    cameras = orbit(frames, size, elevation, distance, fov)
    with atomic_path(path) as draft:
        video = imageio_ffmpeg.write_frames(
            str(draft.absolute()),  # a word that begins with / is neither an option nor a protocol to ffmpeg
            (size, size),
            fps=fps,
            codec="libx264",
            pix_fmt_out="yuv420p",
            macro_block_size=2,
            quality=6,
            output_params=["-movflags", "+faststart", "-f", "mp4"],
            ffmpeg_log_level="error",
        )
        try:
            video.send(None)
            for frame in shots(gaussians, cameras, background):
                video.send(frame.tobytes())
        finally:
            video.close()


def preview(images: Float[Tensor, "B H W 3"], path: Path | str) -> None:
    """Write rendered images side by side as one PNG; values are clamped to 0..1.

    Raises:
        OutputError: the file cannot be written.
    """
    _save_png(np.concatenate(list(to_bytes(images)), axis=1), path)


def shots(gaussians: Gaussians, cameras: Cameras, background: Color) -> Iterator[np.ndarray]:
    """Yield the views one by one as [H, W, 3] of bytes."""
    device = gaussians.means.device
    for chunk in _chunks(cameras):
        backgrounds = torch.tensor(background, device=device).expand(len(chunk), 3)
        with torch.no_grad():
            images = render(gaussians, to_device(chunk, device), backgrounds).images
        yield from to_bytes(images)


def _chunks(cameras: Cameras) -> Iterator[Cameras]:
    """Yield the cameras in batches of few enough pixels."""
    step = max(1, PIXELS_AT_ONCE // (cameras.width * cameras.height))
    for start in range(0, len(cameras), step):
        yield cameras.pick(slice(start, start + step))


def _check_ffmpeg(path: Path | str) -> None:
    import imageio_ffmpeg

    try:
        imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise OutputError(f"cannot write {path}: no ffmpeg; install it, or name it in IMAGEIO_FFMPEG_EXE") from error


def to_bytes(images: Float[Tensor, "B H W 3"]) -> np.ndarray:
    """Colours 0..1, what is beyond them cut, as bytes 0..255, rounded."""
    return images.detach().clamp(0.0, 1.0).mul(255.0).round().to("cpu", torch.uint8).numpy()


def _save_png(pixels: np.ndarray, path: Path | str) -> None:
    from PIL import Image

    with atomic_path(path) as draft:
        Image.fromarray(pixels).save(draft, format="PNG")
