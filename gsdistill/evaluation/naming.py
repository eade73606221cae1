"""What a splat looks like: the nearest of all objects of the shapes world, 14 solids and 35 stacks in all colourings.

Pictures y (over the grey g, from every second held-out camera, 32 x 32 pixels) and transparencies t = 1 - alpha are
compared with those of every object, whose parts have shades m_p and colours c_p and whose transparency is T:

    E(c) = |y - g T - sum_p c_p m_p|^2 + |t - T|^2,

summed over pixels and channels. E is quadratic in the colours, so with r = y - g T it is
|r|^2 - 2 sum_p c_p . <m_p, r> + sum_pq c_p . c_q <m_p, m_q> + |t - T|^2: all 121 colourings of a layout cost a few
inner products, and those of the truth with itself are computed once. The transparency makes the shape count where a
shaded colour happens to be close to the grey.

The nearest object gives its name only if it explains the pictures. The unexplained part is the object's E over the E
that empty pictures have: 0 for the object itself, 1 for empty pictures. On the shapes prior it was 0.01 to 0.07 at the
end of 14 runs (SDS, SSD, CDS), and 0.07 to 0.16 after a tenth of the steps of seven of them. It was 0.31 for the grey
ball that runs start from, which is nearest to "a pink torus on a pink cube"; 0.18 to 0.58 for halves of the results;
0.27 to 0.57 with their centres moved by 0.3; and 0.36 to 0.75 with opacities too faint to hide what is behind. Above
0.2 the splat has no name. Nor has it one if a part shows none of the world's colours (views.seen_colours), for a
mottled torus is no "pink torus".
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.evaluation.views import SIZE, VIEWS, Pictures, held_out, seen_colours
from gsdistill.worlds.base import Layout, Thing, World

__all__ = ["colouring_costs", "distances", "nearest", "unexplained"]

_SHRINK, _EVERY, _SUPERSAMPLE = 4, 2, 2
_GREY = 0.5
UNKNOWN = 0.2  # the unexplained part above which a splat has no name


@dataclass(frozen=True)
class Catalogue:
    """All L layouts from the same cameras, X pixels in all, and their inner products. A missing second part is zero."""

    layouts: tuple[Layout, ...]
    shade: Float[Tensor, "L 2 X"]
    clear: Float[Tensor, "L X"]  # T
    shade_shade: Float[Tensor, "L 2 2"]
    shade_clear: Float[Tensor, "L 2"]
    clear_clear: Float[Tensor, "L"]


def nearest(ours: Pictures, world: World) -> tuple[Thing, ...] | None:
    """The object of ``world`` that is nearest to the pictures from the held-out cameras; None if it has no name."""
    errors = distances(ours, world)
    layout, first, second = (int(i) for i in torch.unravel_index(errors.argmin(), errors.shape))
    names = list(world.palette)
    shapes = _catalogue(world).layouts[layout]
    if unexplained(errors, world) > UNKNOWN or None in seen_colours(_shrunk(ours), world, shapes):
        return None
    return tuple(Thing(names[color], shape) for color, shape in zip((first, second), shapes, strict=False))


def unexplained(errors: Float[Tensor, "L C C"], world: World) -> float:
    """The nearest object's E over that of empty pictures, see the module; ``errors`` are those of :func:`distances`."""
    place = errors.argmin()
    return float(errors.flatten()[place] / _bare(world).flatten()[place])


def distances(ours: Pictures, world: World) -> Float[Tensor, "L C C"]:
    """Mean square difference, over pixels and the four channels, to each layout of a world in each colouring.

    The axes are the layout, the colour of the first part and that of the second, which a single part ignores.
    """
    catalogue, small = _catalogue(world), _shrunk(ours)
    body, clear = (plane[::_EVERY].double() for plane in (small.body, 1.0 - small.alpha))
    y = (body + clear * _GREY).clamp(0.0, 1.0).reshape(-1, 3)
    t = clear.reshape(-1)
    r_r = (y**2).sum() - 2 * _GREY * catalogue.clear @ y.sum(1) + 3 * _GREY**2 * catalogue.clear_clear
    m_r = catalogue.shade @ y - _GREY * catalogue.shade_clear[..., None]
    t_t = (t**2).sum() - 2 * catalogue.clear @ t + catalogue.clear_clear
    palette = torch.tensor(list(world.palette.values()), dtype=torch.float64)
    return ((r_r + t_t)[:, None, None] + colouring_costs(palette, catalogue.shade_shade, m_r)) / (4 * len(t))


def colouring_costs(
    palette: Float[Tensor, "C 3"], m_m: Float[Tensor, "*B 2 2"], m_r: Float[Tensor, "*B 2 3"]
) -> Float[Tensor, "*B C C"]:
    """The terms of E that depend on the colours, for each pair of colours of the two parts.

    For a layout of one part the second row and column of ``m_m`` and the second row of ``m_r`` are zero.
    """
    gram = palette @ palette.T
    single = m_m.diagonal(dim1=-2, dim2=-1)[..., None] * gram.diagonal() - 2.0 * m_r @ palette.T
    return single[..., 0, :, None] + single[..., 1, None, :] + 2.0 * m_m[..., 0, 1, None, None] * gram


@functools.cache
def _bare(world: World) -> Float[Tensor, "L C C"]:
    """The distances of empty pictures."""
    blank = torch.zeros(VIEWS, SIZE, SIZE, 4)
    return distances(Pictures(blank[..., :3], blank[..., 3:]), world)


@functools.cache
def _catalogue(world: World) -> Catalogue:
    """The catalogue of a world, drawn once per process."""
    cameras = held_out(SIZE // _SHRINK).pick(slice(None, None, _EVERY))
    layouts = world.layouts()
    pixels = len(cameras) * cameras.width * cameras.height
    shade = torch.zeros(len(layouts), 2, pixels, dtype=torch.float64)
    clear = torch.zeros(len(layouts), pixels, dtype=torch.float64)
    for row, buffers in enumerate(world.buffers(layouts, cameras, _SUPERSAMPLE)):
        parts = buffers.shade.shape[1]
        shade[row, :parts] = buffers.shade.transpose(0, 1).reshape(parts, -1).double()
        clear[row] = 1.0 - buffers.coverage.sum(1).reshape(-1).double()
    return Catalogue(
        layouts=tuple(layouts),
        shade=shade,
        clear=clear,
        shade_shade=shade @ shade.transpose(1, 2),
        shade_clear=(shade @ clear[..., None])[..., 0],
        clear_clear=(clear**2).sum(1),
    )


def _shrunk(pictures: Pictures) -> Pictures:
    """The pictures at the smaller size, each pixel the mean of those it replaces."""
    planes = torch.cat([pictures.body, pictures.alpha], dim=-1).permute(0, 3, 1, 2)
    small = torch.nn.functional.avg_pool2d(planes, _SHRINK).permute(0, 2, 3, 1)
    return Pictures(small[..., :3], small[..., 3:])
