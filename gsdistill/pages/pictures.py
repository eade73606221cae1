"""Pictures and the video of a run as data URIs, and what only a report shows: the splat as it grew, and the truth.

Pictures are kept as WebP, which is a fraction of a PNG, and stand over white as those of the run do.
"""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gsdistill.core.errors import BadFile
from gsdistill.core.failing import failing_as

if TYPE_CHECKING:
    import numpy as np

    from gsdistill.core.structs import Cameras

__all__ = ["Picture", "beside_truth", "floating", "growth", "picture", "video"]

WHITE = (1.0, 1.0, 1.0)
STAGES, STAGE_SIZE = 12, 144  # of the growing splat: pictures at most, and pixels of each
STAGE_VIEW = (35.0, 20.0, 3.2, 40.0)  # azimuth, elevation, distance and field of view
LOOSE_SIZE = 320
TRUTH_VIEWS = (1, 7, 12, 18, 23, 29)  # of the held-out cameras: all around, from low to high


class Picture(NamedTuple):
    """An image inside a page."""

    source: str  # a data URI
    width: int  # pixels
    height: int
    alt: str


def picture(path: Path, alt: str) -> Picture:
    """Return a picture file as an image inside a page.

    Raises:
        BadFile: the file is no picture, or larger than WebP's 16,383 pixels.
    """
    from PIL import Image

    with failing_as(BadFile, f"{path}: not a picture that can be embedded"), Image.open(path) as image:
        return _embedded(image.convert("RGB"), alt)


def video(path: Path) -> str:
    """Return an MP4 as a data URI.

    Raises:
        BadFile: the file is no MP4.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadFile(f"{path}: cannot be read: {error.strerror}") from error
    if data[4:8] != b"ftyp":
        raise BadFile(f"{path}: not an MP4 video")
    return _uri(data, "video/mp4")


def growth(snapshots: dict[int, Path]) -> list[tuple[int, Picture]]:
    """Draw up to twelve of the snapshots of a run, the first and the last among them; returns them by step.

    Raises:
        BadFile: a snapshot cannot be read.
    """
    from gsdistill.export.pictures import shots
    from gsdistill.scene.read import read_splat

    steps, view = list(snapshots), _stage()
    count = min(STAGES, len(steps))
    chosen = [steps[round(place * (len(steps) - 1) / max(1, count - 1))] for place in range(count)]
    drawn = []
    for step in chosen:
        (pixels,) = shots(read_splat(snapshots[step]), view, WHITE)
        drawn.append((step, _drawn(pixels, f"the splat after step {step}")))
    return drawn


def beside_truth(splat: Path, prompt: str) -> tuple[Picture, Picture]:
    """Draw the splat and the true object of ``prompt`` from the same six held-out cameras; one strip each.

    Raises:
        BadFile: the splat cannot be read. PromptError: the prompt is not of the shapes world.
    """
    import numpy as np
    import torch

    from gsdistill.evaluation.truth import truth_views
    from gsdistill.evaluation.views import held_out
    from gsdistill.export.pictures import shots, to_bytes
    from gsdistill.scene.read import read_splat

    cameras = held_out().pick(torch.tensor(TRUTH_VIEWS))
    true = to_bytes(truth_views(prompt, cameras, WHITE))
    ours = list(shots(read_splat(splat), cameras, WHITE))
    splat_strip, true_strip = np.concatenate(ours, axis=1), np.concatenate(list(true), axis=1)
    words = f"the splat from {len(ours)} sides", "the true object from the same sides"
    return _drawn(splat_strip, words[0]), _drawn(true_strip, words[1])


def floating(splat: Path) -> tuple[Picture, str] | None:
    """Draw what floats loose of the object, from the side that shows most of it, with words; None if nothing does.

    Raises:
        BadFile: the splat cannot be read.
    """
    from gsdistill.export.pictures import shots
    from gsdistill.pages.loose import find_loose
    from gsdistill.scene.read import read_splat

    gaussians = read_splat(splat)
    loose = find_loose(gaussians)
    if loose is None:
        return None
    (pixels,) = shots(gaussians, loose.camera(LOOSE_SIZE), WHITE)
    below = "below" if loose.elevation < 0 else "above"
    words = (
        f"{100 * loose.share:.2g} % of the opacity floats loose; most of it is seen from here, azimuth "
        f"{loose.azimuth:.0f}, {abs(loose.elevation):.0f} degrees {below} the horizon"
    )
    return _drawn(pixels, "the splat from the side that shows most of what floats loose"), words


def _stage() -> Cameras:
    import torch

    from gsdistill.scene.cameras import look_at_origin

    azimuth, elevation, distance, fov = (torch.tensor([value]) for value in STAGE_VIEW)
    return look_at_origin(azimuth, elevation, distance, fov, STAGE_SIZE)


def _drawn(pixels: np.ndarray, alt: str) -> Picture:
    from PIL import Image

    return _embedded(Image.fromarray(pixels), alt)


def _embedded(image: Any, alt: str) -> Picture:
    file = BytesIO()
    image.save(file, format="WEBP", quality=90, method=4)
    source = _uri(file.getvalue(), "image/webp")
    return Picture(source, image.width, image.height, alt)


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
