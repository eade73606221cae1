"""What a splat shows by itself, where nobody knows the truth of its prompt: colours, noise, floaters and silhouettes.

The object should be in the unit ball, +z up; a splat whose extent is beyond 1 is shrunk to 1 before it is seen.
Saturation and high frequencies are measured on the held-out pictures (views.py), silhouettes from a ring of 24 cameras
at elevation 15, 15 degrees apart.

High frequencies. With L the luminance of the object's own colour and S its mean over 3 x 3 pixels with the weights
(1, 2, 1) (1, 2, 1)^T / 16, a wave of f_x and f_y periods per pixel comes through S with cos^2(pi f_x) cos^2(pi f_y):
whole where it is slow, half at a quarter of the sampling rate, not at all at the finest, half of it. The figure is

    sum over I of (L - S)^2 / sum over T of max((L - mean L)^2, 1 / 255^2),

I being the pixels whose 3 x 3 neighbours all are in the silhouette, T those neighbours, the pixels that S is made of,
and mean L that of each picture over T: the share of the differences in luminance that is too fine to survive S. It is
in 0..1, for what 1 - S makes of any picture has no more energy than the picture, here L - mean L in T and 0 elsewhere.
A checkerboard has 1, white noise 41 / 64, smooth shading nearly 0, each times the share of I in T, by which small and
thin objects have less; one grey level of 8 bits is the least that counts as a difference. True pictures of the 14
solids of the shapes world have 0 to 0.020, by their edges; splats of a thousand large Gaussians, which blur them, less
than 0.001. Mottle, as distillation with a strong guidance leaves it in splats of small Gaussians, raises it.

Silhouettes. For neighbouring views of the ring the intersection over union of the silhouettes, 0 where both are empty.
Its mean tells how smoothly the outline turns, its least where it jumps; both fall where the splat is thin from one
side, as a billboard is, or has a part that only some views have. The least area over the largest tells a billboard.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, pad

from gsdistill.core.structs import Gaussians, on_processor
from gsdistill.evaluation.diversity import LUMINANCE, saturation
from gsdistill.evaluation.views import Pictures, photograph
from gsdistill.renderer.base import render
from gsdistill.scene.cameras import orbit
from gsdistill.scene.parts import parts
from gsdistill.training.health import measure

__all__ = ["MEANINGS", "high_frequency", "loose", "plain_figures", "silhouettes"]

AZIMUTHS, ELEVATION, SIZE = 24, 15.0, 128
GREY_LEVEL = 1 / 255

MEANINGS = {
    "saturation": "Mean HSV saturation of the object, 0..1. Neither way is better: colours of distillation are often "
    "stronger than those of a photograph.",
    "high_frequency": "Share of the differences in luminance that is as fine as single pixels, 0..1. Sharp edges have "
    "up to two hundredths, a blurred splat next to nothing; noise and mottle have more, and there lower is better.",
    "loose": "Floaters: share of the opacity that does not hang together with the largest part, 0..1. Lower is better, "
    "unless the object has several parts by nature.",
    "silhouette_agreement": "Mean overlap (IoU) of the silhouettes of neighbouring views, 15 degrees apart, 0..1. "
    "Higher is better: the outline turns smoothly.",
    "silhouette_worst": "The least overlap of two neighbouring silhouettes, 0..1. Higher is better: near 0 the outline "
    "jumps, as that of a flat billboard does when it is seen from its edge.",
    "silhouette_thinnest": "The smallest silhouette over the largest, seen from all around, 0..1. Near 0 the object is "
    "a flat billboard; what is right depends on the object.",
    "extent": "Radius around the origin that holds 95 % of what is shown, in world units; the object should fill 1.",
    "gaussians": "How many Gaussians there are. Fewer are smaller files and faster pictures.",
}


def plain_figures(gaussians: Gaussians) -> dict[str, float | int]:
    """All figures of :data:`MEANINGS`, which says what each one tells. About half a second on a CPU."""
    splat = on_processor(gaussians)
    extent = measure(splat).extent
    fitting = _shrunk(splat, max(1.0, extent))
    seen = photograph(fitting)
    outlines = silhouettes(fitting)
    areas, neighbours = outlines.sum((1, 2)), outlines.roll(-1, dims=0)
    both, either = (outlines & neighbours).sum((1, 2)), (outlines | neighbours).sum((1, 2))
    overlaps = both / either.clamp_min(1)
    return {
        "saturation": saturation(seen),
        "high_frequency": high_frequency(seen),
        "loose": loose(splat),
        "silhouette_agreement": float(overlaps.mean()),
        "silhouette_worst": float(overlaps.min()),
        "silhouette_thinnest": float(areas.min() / areas.max().clamp_min(1)),
        "extent": extent,
        "gaussians": len(splat),
    }


def high_frequency(pictures: Pictures) -> float:
    """The share of the differences in luminance that is as fine as pixels, see the module; 0 where nothing is seen."""
    light = (pictures.colours.double() @ torch.tensor(LUMINANCE, dtype=torch.float64))[:, None]
    weights = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4.0
    fine = light[:, :, 1:-1, 1:-1] - conv2d(light, torch.outer(weights, weights)[None, None])
    outside = 1.0 - pictures.silhouettes[:, None].double()
    inside = 1.0 - max_pool2d(outside, 3, stride=1)
    wide = max_pool2d(pad(inside, (2, 2, 2, 2)), 3, stride=1)
    mean = (wide * light).sum((2, 3), keepdim=True) / wide.sum((2, 3), keepdim=True).clamp_min(1.0)
    energy = (wide * (light - mean).square().clamp_min(GREY_LEVEL**2)).sum()
    return float((inside * fine.square()).sum() / energy) if energy > 0 else 0.0


def loose(gaussians: Gaussians) -> float:
    """Share, 0..1, of the summed opacity that is not in the part with the most of it (gsdistill.scene.parts)."""
    opacities = torch.sigmoid(gaussians.opacities.double()).cpu()
    return float(opacities[parts(gaussians) > 0].sum() / opacities.sum().clamp_min(1e-30))


def silhouettes(gaussians: Gaussians) -> Bool[Tensor, "24 H W"]:
    """Where the splat is, seen from the ring of 24 cameras, azimuth 0 first."""
    cameras = orbit(AZIMUTHS, SIZE, elevation=ELEVATION)
    with torch.no_grad():
        seen = render(gaussians, cameras, torch.zeros(AZIMUTHS, 3))
    return Pictures(seen.images, seen.alphas).silhouettes


def _shrunk(gaussians: Gaussians, by: float) -> Gaussians:
    g = gaussians
    return replace(g, means=g.means / by, scales=g.scales - math.log(by), options=g.options.elsewhere())
