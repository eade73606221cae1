"""Penalties added to the distillation loss; each weight is a schedule over the stage, and 0 leaves the term out.

opacity   mean over pixels of the rendered alpha: Gaussians that no gradient supports fade (no floaters, no halo)
entropy   mean over pixels of alpha (1 - alpha): pixels are either solid or empty
scale     mean over Gaussians of the squared largest standard deviation, world units
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Gaussians, Render
from gsdistill.settings.ramp import Ramp

__all__ = ["RegularizerSettings", "penalty"]


@dataclass(frozen=True)
class RegularizerSettings:
    """Weights of the penalties, relative to the distillation loss (half a squared gradient norm per view)."""

    opacity: Ramp = bounded(Ramp(0.0, 0.0), low=0)  # weight of the mean alpha
    entropy: Ramp = bounded(Ramp(0.0, 0.0), low=0)  # weight of the mean alpha (1 - alpha)
    scale: Ramp = bounded(Ramp(0.0, 0.0), low=0)  # weight of the mean squared largest deviation


def penalty(settings: RegularizerSettings, progress: float, gaussians: Gaussians, render: Render) -> Float[Tensor, ""]:
    """Return the weighted sum of the penalties at ``progress`` (0..1) of the stage; a constant zero if all are off."""
    total = render.alphas.new_zeros(())
    opacity, entropy, scale = settings.opacity(progress), settings.entropy(progress), settings.scale(progress)
    if opacity:
        total = total + opacity * render.alphas.mean()
    if entropy:
        total = total + entropy * (render.alphas * (1.0 - render.alphas)).mean()
    if scale:
        total = total + scale * torch.exp(2.0 * gaussians.scales.amax(dim=-1)).mean()
    return total
