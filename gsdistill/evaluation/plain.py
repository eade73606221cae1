"""Figures of a splat alone, for prompts whose truth is not known: colours, noise, floaters and silhouettes.

The object should be in the unit ball, +z up; a splat of a larger extent is first shrunk to extent 1. Saturation and
high frequencies are measured on the pictures from the held-out cameras (views.py), silhouettes from a ring of 24
cameras at elevation 15, 15 degrees apart.

High frequencies. L is the luminance of the object's own colour, and S is L smoothed over 3 x 3 pixels with the weights
(1, 2, 1) (1, 2, 1)^T / 16. Smoothing multiplies a wave of f_x and f_y periods per pixel by cos^2(pi f_x) cos^2(pi f_y):
along an axis by 1 for slow waves, by 1/2 for a period of four pixels, and by 0 for the finest, of two pixels. Let I be
the pixels whose 3 x 3 neighbours all lie in the silhouette, and T all these neighbours, from which S is computed. The
figure is the share of the differences in luminance that smoothing removes,

    sum over I of (L - S)^2 / sum over T of max((L - mean L)^2, 1 / 255^2),

with mean L that of each picture over T. It lies in 0..1, for L - S never has more energy than the picture itself (here
L - mean L in T and 0 elsewhere). The least difference that counts is one grey level of 8 bits. A checkerboard has 1,
white noise 41 / 64, smooth shading nearly 0, each times the share of I in T, which is lower for small and thin objects.
True pictures of the 14 solids of the shapes world have 0 to 0.020, by their edges; splats of a thousand large
Gaussians, which blur edges, less than 0.001. Mottle, which distillation with a strong guidance leaves in splats of
small Gaussians, raises the figure.

Silhouettes. For each two neighbouring views of the ring: the intersection over union of their silhouettes, 0 where both
are empty. The mean says how smoothly the outline turns, and the minimum drops where it jumps. Both are low for a splat
that is thin from one side, such as a billboard, or that has a part in some views only. The smallest area of a
silhouette over the largest reveals a billboard.
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
from gsdistill.evaluation.views import Pictures, overlaps, photograph
from gsdistill.renderer.base import render
from gsdistill.scene.parts import parts
from gsdistill.scene.viewpoints import orbit
from gsdistill.training.health import measure

__all__ = ["MEANINGS", "high_frequency", "loose", "plain_figures", "silhouettes"]

AZIMUTHS, ELEVATION, SIZE = 24, 15.0, 128
GREY_LEVEL = 1 / 255

MEANINGS = {
    "saturation": "Mean HSV saturation of the object, 0..1. Neither more nor less is better: distilled colours are "
    "often stronger than those of a photograph.",
    "high_frequency": "Share of the differences in luminance that is as fine as single pixels, 0..1. Sharp edges have "
    "up to 0.02 and a blurred splat nearly 0. Noise and mottle have more, and there lower is better.",
    "loose": "Floaters: share of the opacity that is not connected with the largest part, 0..1. Lower is better, "
    "unless the object has several parts by nature.",
    "silhouette_agreement": "Mean overlap (IoU) of the silhouettes of neighbouring views, 15 degrees apart, 0..1. "
    "Higher is better: the outline turns smoothly.",
    "silhouette_worst": "The least overlap of two neighbouring silhouettes, 0..1. Higher is better: near 0 the outline "
    "jumps, as that of a flat billboard does when it is seen from its edge.",
    "silhouette_thinnest": "The smallest silhouette over the largest, seen from all around, 0..1. Near 0 the object is "
    "a flat billboard; what is right depends on the object.",
    "extent": "Radius around the origin that holds 95 % of what is shown, in world units; it should be about 1.",
    "gaussians": "Number of Gaussians. Fewer make smaller files and faster pictures.",
}


def plain_figures(gaussians: Gaussians) -> dict[str, float | int]:
    """All figures of :data:`MEANINGS`, which explains them. About half a second on a CPU."""
    splat = on_processor(gaussians)
    extent = measure(splat).extent
    fitting = _shrunk(splat, max(1.0, extent))
    pictures = photograph(fitting)
    outlines = silhouettes(fitting)
    areas, agreement = outlines.sum((1, 2)), overlaps(outlines, outlines.roll(-1, dims=0))
    return {
        "saturation": saturation(pictures),
        "high_frequency": high_frequency(pictures),
        "loose": loose(splat),
        "silhouette_agreement": float(agreement.mean()),
        "silhouette_worst": float(agreement.min()),
        "silhouette_thinnest": float(areas.min() / areas.max().clamp_min(1)),
        "extent": extent,
        "gaussians": len(splat),
    }


def high_frequency(pictures: Pictures) -> float:
    """The share, 0..1, of the differences in luminance as fine as pixels, see the module; 0 where nothing is seen."""
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
    """Share, 0..1, of the summed opacity outside of the part that has the most of it (gsdistill.scene.parts)."""
    opacities = torch.sigmoid(gaussians.opacities.double()).cpu()
    return float(opacities[parts(gaussians) > 0].sum() / opacities.sum().clamp_min(1e-30))


def silhouettes(gaussians: Gaussians) -> Bool[Tensor, "24 H W"]:
    """The silhouettes of the splat from the ring of 24 cameras, azimuth 0 first; True where the splat is."""
    cameras = orbit(AZIMUTHS, SIZE, elevation=ELEVATION)
    with torch.no_grad():
        renders = render(gaussians, cameras, torch.zeros(AZIMUTHS, 3))
    return Pictures(renders.images, renders.alphas).silhouettes


def _shrunk(gaussians: Gaussians, by: float) -> Gaussians:
    g = gaussians
    return replace(g, means=g.means / by, scales=g.scales - math.log(by), options=g.options.elsewhere())
