"""The inputs of a small pixel prior besides text: Fourier features of the camera, and images folded into latents.

From a raw camera matrix a small network resolves azimuth poorly (errors of 5 to 22 degrees were seen). Sines and
cosines of multiples of the angles give it the fine scale directly, and are periodic as the angle is.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, pixel_shuffle, pixel_unshuffle

__all__ = ["fold_image", "fourier_features", "unfold_image"]


def fourier_features(
    azimuths: Float[Tensor, "B"],
    elevations: Float[Tensor, "B"],
    azimuth_frequencies: tuple[int, ...],
    elevation_frequencies: tuple[int, ...],
) -> Float[Tensor, "B F"]:
    """[sin k a for each k, cos k a for each k, then the same of e] for azimuths a and elevations e in degrees."""
    columns = []
    for angles, frequencies in ((azimuths, azimuth_frequencies), (elevations, elevation_frequencies)):
        phases = [k * torch.deg2rad(angles) for k in frequencies]  # a tensor of k would be sent in each call
        columns += [phase.sin() for phase in phases] + [phase.cos() for phase in phases]
    return torch.stack(columns, dim=1)


def fold_image(images: Float[Tensor, "B H W 3"], size: int, factor: int) -> Float[Tensor, "B C h w"]:
    """Average images (0..1) to ``size`` pixels, scale them to -1..1 and move factor^2 pixels into the channels.

    That only permutes values, so white noise stays white and distances are kept, and the network has factor^2 times
    fewer positions to work on.
    """
    planes = images.permute(0, 3, 1, 2)
    if planes.shape[-1] != size:
        planes = interpolate(planes, size=(size, size), mode="area")
    return pixel_unshuffle(2.0 * planes - 1.0, factor)


def unfold_image(latents: Float[Tensor, "B C h w"], factor: int) -> Float[Tensor, "B H W 3"]:
    """The images, clamped to 0..1, that :func:`fold_image` folded."""
    return (0.5 * pixel_shuffle(latents, factor).permute(0, 2, 3, 1) + 0.5).clamp(0.0, 1.0)
