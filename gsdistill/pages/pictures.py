"""Pictures and the video of a run as data URIs, and pictures for the report alone: growth, truth and loose parts.

Pictures are WebP, which is a fraction of a PNG in size, and over white, as those of the run are.
"""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8

from gsdistill.core.errors import BadFile
from gsdistill.core.failing import failing_as
from gsdistill.export.pictures import shots, to_bytes
from gsdistill.pages.loose import find_loose
from gsdistill.scene.read import read_splat
from gsdistill.scene.viewpoints import look_at_origin
from gsdistill.worlds.base import World

__all__ = ["Picture", "draw_beside_truth", "draw_growth", "draw_loose", "embed_picture", "embed_video"]

WHITE = (1.0, 1.0, 1.0)
STEPS, STEP_SIZE = 12, 144  # of the growing splat: most pictures, and pixels of a side of each
STEP_VIEW = (35.0, 20.0, 3.2, 40.0)  # azimuth, elevation, distance and field of view
LOOSE_SIZE = 320  # pixels
TRUTH_VIEWS = (1, 7, 12, 18, 23, 29)  # of the held-out cameras: all around, from low to high


class Picture(NamedTuple):
    """An image inside a page."""

    source: str  # a data URI
    width: int  # pixels
    height: int
    alt: str


def embed_picture(path: Path, alt: str) -> Picture:
    """Return a picture file as an image inside a page.

    Raises:
        BadFile: the file is no picture, or larger than WebP's 16,383 pixels.
    """
    from PIL import Image

    with failing_as(BadFile, f"{path}: not a picture that can be embedded"), Image.open(path) as image:
        return _encode(np.asarray(image.convert("RGB")), alt)


def embed_video(path: Path) -> str:
    """Return an MP4 as a data URI.

    Raises:
        BadFile: the file cannot be read or is no MP4.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadFile(f"{path}: cannot be read: {error.strerror}") from error
    if data[4:8] != b"ftyp":
        raise BadFile(f"{path}: not an MP4 video")
    return _uri(data, "video/mp4")


def draw_growth(snapshots: dict[int, Path]) -> list[tuple[int, Picture]]:
    """Draw up to twelve of the snapshots of a run, with the first and the last; returns steps and pictures.

    Raises:
        BadFile: a snapshot cannot be read.
    """
    camera = look_at_origin(*torch.tensor(STEP_VIEW)[:, None].unbind(), size=STEP_SIZE)
    steps = list(snapshots)
    count = min(STEPS, len(steps))
    pictures = []
    for step in (steps[round(place * (len(steps) - 1) / max(1, count - 1))] for place in range(count)):
        (pixels,) = shots(read_splat(snapshots[step]), camera, WHITE)
        pictures.append((step, _encode(pixels, f"the splat after step {step}")))
    return pictures


def draw_beside_truth(splat: Path, prompt: str, world: World | None) -> tuple[Picture, Picture]:
    """Draw the splat and the true object of ``prompt`` from the same six held-out cameras, each as a strip.

    Raises:
        BadFile: the splat cannot be read. PromptError: the prompt is not of the world, or of none without one.
    """
    from gsdistill.evaluation.truth import truth_views
    from gsdistill.evaluation.views import held_out

    cameras = held_out().pick(torch.tensor(TRUTH_VIEWS))
    true = np.concatenate(to_bytes(truth_views(prompt, cameras, WHITE, world)), axis=1)
    ours = np.concatenate(list(shots(read_splat(splat), cameras, WHITE)), axis=1)
    alt = f"the splat from {len(cameras)} sides", "the true object from the same sides"
    return _encode(ours, alt[0]), _encode(true, alt[1])


def draw_loose(splat: Path) -> tuple[Picture, str] | None:
    """Draw the splat from the side that shows most of its loose Gaussians, with a caption; None if none is seen.

    Raises:
        BadFile: the splat cannot be read.
    """
    gaussians = read_splat(splat)
    loose = find_loose(gaussians)
    if loose is None:
        return None
    (pixels,) = shots(gaussians, loose.camera(LOOSE_SIZE), WHITE)
    below = "below" if loose.elevation < 0 else "above"
    caption = (
        f"{100 * loose.share:.2g} % of the opacity floats loose; most of it is seen from here, azimuth "
        f"{loose.azimuth:.0f}, {abs(loose.elevation):.0f} degrees {below} the horizon"
    )
    return _encode(pixels, "the splat from the side that shows most of what floats loose"), caption


def _encode(pixels: UInt8[np.ndarray, "H W 3"], alt: str) -> Picture:
    from PIL import Image

    file = BytesIO()
    Image.fromarray(pixels).save(file, format="WEBP", quality=90, method=4)
    return Picture(_uri(file.getvalue(), "image/webp"), pixels.shape[1], pixels.shape[0], alt)


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
