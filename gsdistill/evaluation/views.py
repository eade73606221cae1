"""Pictures of a splat compared with those of the truth, from two sets of fixed cameras: silhouettes and colours.

In both sets the azimuth grows by the golden angle from camera to camera. The distance is 3.2, the field of view 40
degrees, and a picture has 128 x 128 pixels:

* held out: 32 cameras of elevation -10..60 degrees, the range from which runs draw their cameras by default. No run
  trains on them, but on their neighbours.
* unseen: 16 cameras outside of that range, 12 of elevation -60..-30, which see the underside, and 4 of 75..90, which
  look down. The method alone decides what is there. (A run of another ``cameras.elevation`` may have seen it.)

A picture is stored as body b (colour times coverage, over black) and alpha a. Over a background g it is b + (1 - a) g,
and inside the silhouette, where a > 1/2, its colour is b / a.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gsdistill.core.structs import Cameras, Gaussians
from gsdistill.renderer.base import render
from gsdistill.scene.viewpoints import golden_azimuths, look_at_origin
from gsdistill.worlds.base import Buffers, Layout, Thing, World, paint

__all__ = [
    "SIZE",
    "VIEWS",
    "Pictures",
    "buffers",
    "colour_error",
    "colour_residuals",
    "compared",
    "held_out",
    "iou",
    "overlaps",
    "photograph",
    "picture_error",
    "psnr",
    "seen_colours",
    "soft_iou",
    "truth",
    "unseen",
]

VIEWS, BELOW, ABOVE, SIZE = 32, 12, 4, 128
_ELEVATIONS, _UNDER, _OVER = (-10.0, 60.0), (-60.0, -30.0), (75.0, 90.0)
_DISTANCE, _FOV = 3.2, 40.0
_START = 8.65  # degrees, the first azimuth: with it no camera comes within a degree of a multiple of 45
_EDGE = 0.5  # alpha above which a pixel belongs to the silhouette
_SAME = 1e-10  # least mean square difference that is told apart: 100 dB

# The residual of a part's nearest colour over that of the next: above this ratio the part has no colour. At the end of
# 14 runs on the shapes prior (SDS, SSD, CDS) it was 0.09 to 0.41, and 0.69 for the thin legs of a yellow table by CDS,
# which a person still calls yellow. With all Gaussians in random colours it was 0.77 to 0.99, with all in grey 0.73 to
# 0.90, and with half of them in random colours, which leave a hint, 0.58 to 1.
UNCLEAR = 0.71


@dataclass(frozen=True)
class Pictures:
    """Pictures from B cameras: body in 0..1, premultiplied with alpha."""

    body: Float[Tensor, "B H W 3"]
    alpha: Float[Tensor, "B H W 1"]
    depth: Float[Tensor, "B H W 1"] | None = None  # along the camera's axis, world units; infinite where nothing is

    @functools.cached_property
    def silhouettes(self) -> Bool[Tensor, "B H W"]:
        """True where the object is."""
        return self.alpha[..., 0] > _EDGE

    @functools.cached_property
    def colours(self) -> Float[Tensor, "B H W 3"]:
        """The colour of the object itself, RGB in 0..1; it has a meaning only inside the silhouettes."""
        return (self.body / self.alpha.clamp_min(_EDGE)).clamp(0.0, 1.0)

    @functools.cached_property
    def over_white(self) -> Float[Tensor, "B H W 3"]:
        """The whole pictures over white, RGB in 0..1."""
        return (self.body + 1.0 - self.alpha).clamp(0.0, 1.0)


@functools.lru_cache(maxsize=4)
def held_out(size: int = SIZE) -> Cameras:
    """The 32 held-out cameras, ``size`` pixels wide and high."""
    return _spiral([_spread(VIEWS, _ELEVATIONS)], size)


@functools.lru_cache(maxsize=4)
def unseen(size: int = SIZE) -> Cameras:
    """The 16 unseen cameras, the 12 below first."""
    return _spiral([_spread(BELOW, _UNDER), _spread(ABOVE, _OVER)], size)


def photograph(gaussians: Gaussians, cameras: Cameras | None = None) -> Pictures:
    """Draw the splat from ``cameras``, by default the held-out ones; its depth is the mean by blending weights."""
    cameras = cameras or held_out()
    with torch.no_grad():
        renders = render(gaussians, cameras, torch.zeros(len(cameras), 3))
    depth = torch.where(renders.alphas > _EDGE, renders.depths / renders.alphas, torch.inf)
    return Pictures(renders.images, renders.alphas, depth)


@functools.lru_cache(maxsize=16)  # cameras are compared by identity, not by value
def buffers(world: World, layout: Layout, cameras: Cameras) -> Buffers:
    """The uncoloured truth from ``cameras``, drawn once per process."""
    return world.buffers([layout], cameras)[0]


def truth(
    world: World, things: tuple[Thing, ...], cameras: Cameras | None = None, layout: Layout | None = None
) -> Pictures:
    """The object ``things`` of a world from ``cameras``, by default the held-out ones.

    ``layout`` is one that the things may mean, by default the first.
    """
    cameras = cameras or held_out()
    light = buffers(world, layout or world.meant(things)[0], cameras)
    return Pictures(*paint(light, world.colors(things), torch.zeros(len(cameras), 3)))


def compared(ours: Pictures, true: Pictures) -> dict[str, float]:
    """The five figures of two sets of pictures: iou, soft_iou, colour_error, picture_error and psnr, by these names."""
    measures = (iou, soft_iou, colour_error, picture_error, psnr)
    return {measure.__name__: measure(ours, true) for measure in measures}


def iou(ours: Pictures, true: Pictures) -> float:
    """Intersection over union of the silhouettes, 0..1: per view, then the mean over the views."""
    return float(overlaps(ours.silhouettes, true.silhouettes).mean())


def overlaps(a: Bool[Tensor, "B H W"], b: Bool[Tensor, "B H W"]) -> Float[Tensor, "B"]:
    """Intersection over union of each two silhouettes, 0..1; 0 where both are empty."""
    return (a & b).sum((1, 2)) / (a | b).sum((1, 2)).clamp_min(1)


def soft_iou(ours: Pictures, true: Pictures) -> float:
    """Sum of min(a, a') over sum of max(a, a') of the alphas, 0..1: per view, then the mean. Haze and holes count."""
    a, b = ours.alpha.flatten(1), true.alpha.flatten(1)
    both, either = (values.sum(1, dtype=torch.float64) for values in (torch.minimum(a, b), torch.maximum(a, b)))
    return float((both / either.clamp_min(1e-12)).mean())


def colour_error(ours: Pictures, true: Pictures) -> float:
    """Mean absolute difference of the RGB colours, 0..1, over all pixels in both silhouettes; 1 if there are none.

    Pixels in one silhouette only cost nothing here: :func:`picture_error` counts them.
    """
    inside = ours.silhouettes & true.silhouettes
    if not inside.any():
        return 1.0
    return float((ours.colours[inside] - true.colours[inside]).abs().mean())


def picture_error(ours: Pictures, true: Pictures) -> float:
    """Mean absolute difference of RGB over white, 0..1, over all pixels in either silhouette; 0 if there are none."""
    either = ours.silhouettes | true.silhouettes
    if not either.any():
        return 0.0
    return float((ours.over_white[either] - true.over_white[either]).abs().mean())


def psnr(ours: Pictures, true: Pictures) -> float:
    """Peak signal-to-noise ratio of the whole pictures over white, in dB: per view, then the mean; at most 100."""
    square = (ours.over_white - true.over_white).square().mean((1, 2, 3), dtype=torch.float64)
    return float((-10.0 * square.clamp_min(_SAME).log10()).mean())


def seen_colours(ours: Pictures, world: World, layout: Layout) -> tuple[str | None, ...]:
    """The named colour of each part of the object in our held-out pictures; None for a part without a clear one.

    It is the colour of the least residual (:func:`colour_residuals`), if the next one's is clearly larger. A part that
    has its own colours in this layout has the empty one.
    """
    names, nearest_two = list(world.palette), colour_residuals(ours, world, layout).topk(2, largest=False)
    colored = buffers(world, layout, held_out(ours.body.shape[1])).shade.any((0, 2, 3))
    return tuple(
        "" if not own else names[place] if least <= UNCLEAR * second < torch.inf else None
        for own, (least, second), (place, _) in zip(
            colored.tolist(), nearest_two.values.tolist(), nearest_two.indices.tolist(), strict=True
        )
    )


def colour_residuals(ours: Pictures, world: World, layout: Layout) -> Float[Tensor, "P C"]:
    """How far each named colour is from that of each part in our held-out pictures, of any size: RMS of RGB, 0..1.

    The pixels of part p are those inside our silhouette of which p covers more than half, without what has colours of
    its own. With u their colour in our picture and s the shade of p alone in the truth, colour c leaves the sum of
    squares

        sum |u - c s|^2 = sum |u|^2 - 2 c . sum s u + |c|^2 sum s^2.

    The residuals of a part without pixels are infinite.
    """
    palette = torch.tensor(list(world.palette.values()), dtype=torch.float64)
    light = buffers(world, layout, held_out(ours.body.shape[1]))
    residuals = torch.full((len(layout), len(palette)), torch.inf, dtype=torch.float64)
    for p in range(len(layout)):
        pixels = ours.silhouettes & (light.coverage[:, p] > 0.5)
        if light.fixed is not None:
            pixels &= light.fixed.sum(1) < 0.1 * light.shade[:, p]
        u = ours.colours[pixels].double()
        s = (light.shade[:, p] / light.coverage[:, p].clamp_min(0.5))[pixels].double()
        if len(s):
            squares = (u**2).sum() + (palette**2).sum(1) * (s**2).sum() - 2.0 * palette @ (s @ u)
            residuals[p] = (squares.clamp_min(0.0) / u.numel()).sqrt()
    return residuals


def _spread(count: int, limits: tuple[float, float]) -> Float[Tensor, "{count}"]:
    """``count`` elevations in the middles of as many equal steps of the limits."""
    low, high = limits
    return low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.5) / count


def _spiral(elevations: list[Tensor], size: int) -> Cameras:
    """Cameras at these elevations, each the golden angle further around than the one before."""
    every = torch.cat(elevations)
    ones = torch.ones(len(every))
    return look_at_origin(golden_azimuths(len(every), _START), every, _DISTANCE * ones, _FOV * ones, size)
