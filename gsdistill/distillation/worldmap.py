"""World-map noise: one large sheet of noise around the object, from which every camera sees its own window (FSD).

Facts of the author's later release: for latents h x w and a field of theta degrees the sheet has (180 / theta) h + h
rows and (360 / theta) w + w columns and is periodic in azimuth. A camera at azimuth a and elevation e sees h x w from
    row    floor(-e R / 180)  mod R,   R = (180 / theta) h, rounded
    column floor( a P / 360)  mod P,   P = (360 / theta) w, rounded
so cameras near each other share most of their noise, and the same camera sees the same noise at every step. In
elevation the sheet is not closed: cameras just above and just below the horizon share next to nothing.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.device import widest_float
from gsdistill.core.structs import Cameras

__all__ = ["crop", "draw", "draw_again"]


def draw(shape: tuple[int, int, int], field: float, generator: torch.Generator) -> Float[Tensor, "C rows columns"]:
    """A sheet for latents of ``shape`` (C, h, w): standard normal, its last w columns repeating the first."""
    channels, height, width = shape
    rows, period = round(180 / field * height), round(360 / field * width)
    return draw_again((channels, rows + height, period + width), width, generator)


def draw_again(
    size: tuple[int, int, int], width: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "C rows columns"]:
    """A sheet of a given size, for latents of ``width`` columns."""
    channels, rows, columns = size
    free = (channels, rows, columns - width)
    sheet = torch.randn(free, generator=generator, device=generator.device, dtype=dtype)
    return torch.cat([sheet, sheet[:, :, :width]], dim=2)


def crop(
    sheet: Float[Tensor, "C rows columns"], shape: tuple[int, int, int], cameras: Cameras
) -> Float[Tensor, "B C h w"]:
    """What each camera sees of the sheet."""
    (_, height, width), device = shape, cameras.azimuths.device
    rows, period = sheet.shape[1] - height, sheet.shape[2] - width
    exact = widest_float(device)
    top = torch.floor(-cameras.elevations.to(exact) * rows / 180).long() % rows
    left = torch.floor(cameras.azimuths.to(exact) * period / 360).long() % period
    row = top[:, None] + torch.arange(height, device=device)
    column = left[:, None] + torch.arange(width, device=device)
    return sheet.to(device)[:, row[:, :, None], column[:, None, :]].transpose(0, 1)
