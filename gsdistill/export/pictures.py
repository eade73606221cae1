"""Pictures and films of a scene: contact sheet, turntable, films along paths, stills, preview strip.

Views are rendered a few at a time, so that memory does not grow with their number. Files are written atomically.
Azimuth 0, the first view, shows the front.

A background is RGB in 0..1, or None for a transparent one. With None, files hold alpha a and the colour b / a, where b
is the render over black. A viewer that shows them over a background g gets a (b / a) + (1 - a) g, which is the render
over g.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import ConfigError, OutputError
from gsdistill.core.structs import Cameras, Gaussians, Render, RenderOptions, to_device
from gsdistill.disk.write import atomic_path
from gsdistill.renderer.base import render
from gsdistill.scene.viewpoints import look_at_origin, orbit

__all__ = [
    "FILMS",
    "film_format",
    "shots",
    "to_bytes",
    "with_alpha",
    "write_contact_sheet",
    "write_film",
    "write_preview",
    "write_stills",
    "write_turntable",
]

Color: TypeAlias = tuple[float, float, float] | None

WHITE: Color = (1.0, 1.0, 1.0)
BLACK = (0.0, 0.0, 0.0)
UPPER_ROW = 60.0  # degrees, elevation of the second row of a contact sheet
UNDERSIDE = -50.0  # degrees, elevation of its last picture, which shows what no camera of a usual run sees
PIXELS_AT_ONCE = 1 << 19  # 8 views of 256 px
ENDLESS = 1e9  # the far plane of scenes with the usual one, so that all is seen from any distance
MOST_FPS_OF_GIF = 50  # frames last whole 1/100 s, and viewers play shorter ones than 2/100 s at 10 frames a second


class Film(NamedTuple):
    """How ffmpeg writes a film of one format: the codec, its pixel formats without and with alpha, more arguments."""

    codec: str
    pixels: str
    transparent: str | None
    words: tuple[str, ...]


# A GIF has 256 colours a frame. One palette per frame with error diffusion keeps soft shading (36.3 dB for a sphere of
# all hues); one palette for all frames shows bands or grain (32.1 dB).
PALETTE = "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1:dither=floyd_steinberg"
FILMS = {
    ".mp4": Film("libx264", "yuv420p", None, ("-crf", "20", "-movflags", "+faststart", "-f", "mp4")),
    ".gif": Film("gif", "pal8", "pal8", ("-filter_complex", PALETTE, "-loop", "0", "-f", "gif")),
    ".webm": Film(
        "libvpx-vp9", "yuv420p", "yuva420p",
        ("-crf", "24", "-b:v", "0", "-deadline", "good", "-cpu-used", "4", "-auto-alt-ref", "0", "-f", "webm"),
    ),
}  # fmt: skip


def write_contact_sheet(
    gaussians: Gaussians,
    path: Path | str,
    size: int = 128,
    views: int = 8,
    elevation: float = 20.0,
    background: Color = WHITE,
    distance: float = 3.2,
    fov: float = 40.0,
) -> None:
    """Write a PNG with ``views`` columns at equal steps of azimuth and two rows, at ``elevation`` and from above at 60.

    The last picture of the second row is from below, at -50, to show the underside. ``size`` is the width and height of
    one view in pixels, angles are in degrees, ``distance`` is in world units.

    Raises:
        OutputError: the file cannot be written.
    """
    rows, azimuths, ones = [], torch.arange(views) * (360.0 / views), torch.ones(views)
    for last, height in ((elevation, elevation), (UNDERSIDE, UPPER_ROW)):
        elevations = torch.tensor([height] * (views - 1) + [last])
        cameras = look_at_origin(azimuths, elevations, distance * ones, fov * ones, size)
        rows.append(np.concatenate(list(shots(gaussians, cameras, background)), axis=1))
    _save_png(np.concatenate(rows, axis=0), path)


def write_turntable(
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
    """Write a film of one turn around the object with :func:`write_film`; angles are in degrees."""
    write_film(gaussians, orbit(frames, size, elevation, distance, fov), path, fps, background)


def write_film(
    gaussians: Gaussians, cameras: Cameras, path: Path | str, fps: float = 30.0, background: Color = WHITE
) -> None:
    """Write a film with one frame per camera, ``fps`` frames a second, in the format that the extension names.

    ``.mp4``: H.264, yuv420p, with the index at the start, as browsers need it. ``.webm``: VP9, with alpha if
    ``background`` is None. ``.gif``: 256 colours a frame; pixels are either opaque or transparent.

    Raises:
        ConfigError: the extension is another; ``background`` is None and the format has no alpha; width or height is
            odd, which yuv420p does not allow; or a GIF has more than 50 frames a second.
        OutputError: the file cannot be written, or there is no ffmpeg.
    """
    import imageio_ffmpeg

    how = film_format(path, cameras, fps, background)
    _check_ffmpeg(path)
    options: dict[str, Any] = {
        "pix_fmt_in": "rgb24" if background else "rgba",
        "pix_fmt_out": how.pixels if background else how.transparent,
        "fps": fps,
        "codec": how.codec,
        "quality": None,  # set by output_params
        "macro_block_size": 1,
        "output_params": list(how.words),
        "ffmpeg_log_level": "error",
    }
    with atomic_path(path) as draft:
        # An absolute path begins with /, so that ffmpeg does not take it for an option or a protocol.
        video = imageio_ffmpeg.write_frames(str(draft.absolute()), (cameras.width, cameras.height), **options)
        try:
            video.send(None)
            for frame in shots(gaussians, cameras, background):
                video.send(frame.tobytes())
        finally:
            video.close()


def film_format(path: Path | str, cameras: Cameras, fps: float, background: Color) -> Film:
    """The format of the film ``path``, checked against its cameras, ``fps`` and background.

    Raises:
        ConfigError: as :func:`write_film`.
    """
    extension = Path(path).suffix.lower()
    how = FILMS.get(extension)
    if how is None:
        raise ConfigError(f"'{path}' names no format of a film. Allowed: {', '.join(FILMS)}")
    if not (background or how.transparent):
        raise ConfigError(f"{extension} holds no transparent background; .webm and .gif do")
    odd = [size for size in (cameras.width, cameras.height) if size % 2]
    if odd and "420" in how.pixels:
        raise ConfigError(
            f"a video of size {odd[0]} cannot be encoded as {extension}; the size must be even, such as {odd[0] + 1}"
        )
    if extension == ".gif" and fps > MOST_FPS_OF_GIF:
        raise ConfigError(f"{fps:g} frames a second are too many for a .gif; {MOST_FPS_OF_GIF} is the most")
    return how


def write_stills(gaussians: Gaussians, cameras: Cameras, paths: Iterable[Path], background: Color = WHITE) -> None:
    """Write the view of each camera as a PNG to the path at the same place of ``paths``.

    Raises:
        OutputError: a file cannot be written.
    """
    for path, pixels in zip(paths, shots(gaussians, cameras, background), strict=True):
        _save_png(pixels, path)


def write_preview(images: Float[Tensor, "B H W 3"], path: Path | str) -> None:
    """Write images side by side as one PNG; values are clamped to 0..1.

    Raises:
        OutputError: the file cannot be written.
    """
    _save_png(np.concatenate(list(to_bytes(images)), axis=1), path)


def shots(gaussians: Gaussians, cameras: Cameras, background: Color) -> Iterator[np.ndarray]:
    """Yield each view as bytes [H, W, 3], or [H, W, 4] with alpha if ``background`` is None."""
    device, own = gaussians.means.device, gaussians.options
    whole = replace(gaussians, options=replace(own, far=ENDLESS if own.far == RenderOptions.far else own.far))
    for chunk in _chunks(cameras):
        backgrounds = torch.tensor(background or BLACK, device=device).expand(len(chunk), 3)
        with torch.no_grad():
            seen = render(whole, to_device(chunk, device), backgrounds)
        yield from to_bytes(seen.images if background else with_alpha(seen))


def with_alpha(seen: Render) -> Float[Tensor, "B H W 4"]:
    """The colours of a render over black divided by its alphas, and the alphas; black where alpha is 0."""
    return torch.cat([seen.images / seen.alphas.clamp_min(1e-6), seen.alphas], dim=-1)


def _chunks(cameras: Cameras) -> Iterator[Cameras]:
    """Yield the cameras in batches of at most ``PIXELS_AT_ONCE`` pixels, but at least one camera."""
    step = max(1, PIXELS_AT_ONCE // (cameras.width * cameras.height))
    for start in range(0, len(cameras), step):
        yield cameras.pick(slice(start, start + step))


def _check_ffmpeg(path: Path | str) -> None:
    import imageio_ffmpeg

    try:
        imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise OutputError(f"cannot write {path}: no ffmpeg; install it, or name it in IMAGEIO_FFMPEG_EXE") from error


def to_bytes(images: Float[Tensor, "B H W C"]) -> np.ndarray:
    """Colours, clamped to 0..1, as rounded bytes 0..255."""
    return images.detach().clamp(0.0, 1.0).mul(255.0).round().to("cpu", torch.uint8).numpy()


def _save_png(pixels: np.ndarray, path: Path | str) -> None:
    from PIL import Image

    with atomic_path(path) as draft:
        Image.fromarray(pixels).save(draft, format="PNG")
