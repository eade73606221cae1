"""Pictures and videos of a scene for people to look at: contact sheet, turntable, films and stills, preview strip.

Views are rendered a few at a time, so that memory does not grow with their number. Every file appears whole or not at
all. Azimuth 0, the first view, shows the front.

A background is RGB in 0..1, or None for a transparent one. Files then hold the colour that is not multiplied by alpha:
with body b (colour times coverage, over black) and alpha a it is b / a, and over a background g the picture is
a (b / a) + (1 - a) g, as it would be if rendered before g.
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
from gsdistill.scene.cameras import look_at_origin, orbit

__all__ = [
    "FILMS",
    "contact_sheet",
    "film",
    "film_format",
    "preview",
    "shots",
    "stills",
    "to_bytes",
    "turntable",
    "with_alpha",
]

Color: TypeAlias = tuple[float, float, float] | None

WHITE: Color = (1.0, 1.0, 1.0)
BLACK = (0.0, 0.0, 0.0)
UPPER_ROW = 60.0  # degrees, elevation of the second row of a contact sheet
UNDERSIDE = -50.0  # degrees, of its last picture: what no camera of a usual run has seen
PIXELS_AT_ONCE = 1 << 19  # 8 views of 256 px
ENDLESS = 1e9  # the far plane of who has none of his own: however far the camera stands, all before it is seen
MOST_FPS_OF_GIF = 50  # whose unit is 1/100 s; faster ones are played at 10 frames a second


class Film(NamedTuple):
    """How ffmpeg writes a film of one format: its codec, the pixels without and with alpha, and further words."""

    codec: str
    pixels: str
    transparent: str | None
    words: tuple[str, ...]


# A GIF has 256 colours a frame. One palette for each, and what is lost of a colour given to the pixels around, keep a
# soft shading; one palette for all frames leaves bands or grain (36.3 dB and 32.1 dB for a sphere of all hues).
PALETTE = "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1:dither=floyd_steinberg"
FILMS = {
    ".mp4": Film("libx264", "yuv420p", None, ("-crf", "20", "-movflags", "+faststart", "-f", "mp4")),
    ".gif": Film("gif", "pal8", "pal8", ("-filter_complex", PALETTE, "-loop", "0", "-f", "gif")),
    ".webm": Film(
        "libvpx-vp9", "yuv420p", "yuva420p",
        ("-crf", "24", "-b:v", "0", "-deadline", "good", "-cpu-used", "4", "-auto-alt-ref", "0", "-f", "webm"),
    ),
}  # fmt: skip


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
    """Write a film of one turn around the object, as :func:`film`; angles are in degrees."""
    film(gaussians, orbit(frames, size, elevation, distance, fov), path, fps, background)


def film(
    gaussians: Gaussians, cameras: Cameras, path: Path | str, fps: float = 30.0, background: Color = WHITE
) -> None:
    """Write what the cameras see one after the other, ``fps`` of them a second, in the format of the extension.

    ``.mp4``: H.264, yuv420p, its index in front, as browsers need it. ``.webm``: VP9, with alpha where there is no
    background. ``.gif``: 256 colours a frame and 1/100 s as the unit of time; a pixel is transparent or not.

    Raises:
        ConfigError: the extension is another, the format has no alpha, width or height is odd, which yuv420p cannot
            hold, or a GIF is too fast.
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
        "quality": None,  # which the words say
        "macro_block_size": 1,
        "output_params": list(how.words),
        "ffmpeg_log_level": "error",
    }
    with atomic_path(path) as draft:
        # a word that begins with / is neither an option nor a protocol to ffmpeg
        video = imageio_ffmpeg.write_frames(str(draft.absolute()), (cameras.width, cameras.height), **options)
        try:
            video.send(None)
            for frame in shots(gaussians, cameras, background):
                video.send(frame.tobytes())
        finally:
            video.close()


def film_format(path: Path | str, cameras: Cameras, fps: float, background: Color) -> Film:
    """How the film of the path's extension is written.

    Raises:
        ConfigError: as :func:`film`.
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


def stills(gaussians: Gaussians, cameras: Cameras, paths: Iterable[Path], background: Color = WHITE) -> None:
    """Write what each camera sees as the PNG of its path.

    Raises:
        OutputError: a file cannot be written.
    """
    for path, pixels in zip(paths, shots(gaussians, cameras, background), strict=True):
        _save_png(pixels, path)


def preview(images: Float[Tensor, "B H W 3"], path: Path | str) -> None:
    """Write rendered images side by side as one PNG; values are clamped to 0..1.

    Raises:
        OutputError: the file cannot be written.
    """
    _save_png(np.concatenate(list(to_bytes(images)), axis=1), path)


def shots(gaussians: Gaussians, cameras: Cameras, background: Color) -> Iterator[np.ndarray]:
    """Yield the views one by one as [H, W, 3] of bytes, or [H, W, 4] with alpha where there is no background."""
    device, own = gaussians.means.device, gaussians.options
    whole = replace(gaussians, options=replace(own, far=ENDLESS if own.far == RenderOptions.far else own.far))
    for chunk in _chunks(cameras):
        backgrounds = torch.tensor(background or BLACK, device=device).expand(len(chunk), 3)
        with torch.no_grad():
            seen = render(whole, to_device(chunk, device), backgrounds)
        yield from to_bytes(seen.images if background else with_alpha(seen))


def with_alpha(seen: Render) -> Float[Tensor, "B H W 4"]:
    """Colour and alpha of what is rendered before black, the colour not multiplied by alpha; black where alpha is 0."""
    return torch.cat([seen.images / seen.alphas.clamp_min(1e-6), seen.alphas], dim=-1)


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


def to_bytes(images: Float[Tensor, "B H W C"]) -> np.ndarray:
    """Colours 0..1, what is beyond them cut, as bytes 0..255, rounded."""
    return images.detach().clamp(0.0, 1.0).mul(255.0).round().to("cpu", torch.uint8).numpy()


def _save_png(pixels: np.ndarray, path: Path | str) -> None:
    from PIL import Image

    with atomic_path(path) as draft:
        Image.fromarray(pixels).save(draft, format="PNG")
