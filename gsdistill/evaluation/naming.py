"""What a splat looks like: the nearest of all objects of the shapes world, 14 solids and 35 stacks in all colourings.

Pictures y (over the grey g, from every second held-out camera, 32 x 32 pixels) and transparencies t = 1 - alpha are
compared with those of every object, whose parts have shades m_p and colours c_p and whose transparency is T:

    E(c) = |y - g T - sum_p c_p m_p|^2 + |t - T|^2,

summed over pixels and channels. E is quadratic in the colours, so with r = y - g T it is
|r|^2 - 2 sum_p c_p . <m_p, r> + sum_pq c_p . c_q <m_p, m_q> + |t - T|^2: all 121 colourings of a layout cost a few
inner products, and those of the truth with itself are kept. The transparency makes shape count where a shaded colour
happens to be close to the grey.

The nearest object is a name only where it explains the pictures. What it leaves is its E over that of pictures which
show nothing at all: 0 for the object itself, 1 for nothing. Of 14 runs on the shapes prior that ended (SDS, SSD, CDS)
it was 0.01 to 0.07, after a tenth of the steps of seven of them 0.07 to 0.16; of the grey ball that they start from,
which is nearest to "a pink torus on a pink cube", 0.31; of a half of each 0.18 to 0.58; with centres moved by 0.3, 0.27
to 0.57; with opacities too faint to hide what is behind, 0.36 to 0.75. From 0.2 on nothing known is seen. So it is
where a part has none of the world's colours (views.seen_colours): of a mottled torus, "a pink torus" says what it is
not.
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
UNKNOWN = 0.2  # of the nearest object's own E: see the module


@dataclass(frozen=True)
class Catalogue:
    """All L layouts from the same cameras, X pixels in all, and their inner products; a missing second part is zero."""

    layouts: tuple[Layout, ...]
    shade: Float[Tensor, "L 2 X"]
    clear: Float[Tensor, "L X"]  # T
    shade_shade: Float[Tensor, "L 2 2"]
    shade_clear: Float[Tensor, "L 2"]
    clear_clear: Float[Tensor, "L"]


def nearest(ours: Pictures, world: World) -> tuple[Thing, ...] | None:
    """The object of a world that is nearest to the held-out pictures; None if they show nothing known."""
    errors = distances(ours, world)
    layout, first, second = (int(i) for i in torch.unravel_index(errors.argmin(), errors.shape))
    names = list(world.palette)
    shapes = _catalogue(world).layouts[layout]
    if unexplained(errors, world) > UNKNOWN or None in seen_colours(_shrunk(ours), world, shapes):
        return None
    return tuple(Thing(names[color], shape) for color, shape in zip((first, second), shapes, strict=False))


def unexplained(errors: Float[Tensor, "L C C"], world: World) -> float:
    """The share of the nearest object that its distance is, of :func:`distances`: 0 for the object, 1 for nothing."""
    place = errors.argmin()
    return float(errors.flatten()[place] / _bare(world).flatten()[place])


def distances(ours: Pictures, world: World) -> Float[Tensor, "L C C"]:
    """Mean square difference, over pixels and the four channels, to each layout of a world in each colouring.

    The axes are layout, colour of the first part and of the second, which does not matter where there is one part.
    """
    known, small = _catalogue(world), _shrunk(ours)
    body, clear = (plane[::_EVERY].double() for plane in (small.body, 1.0 - small.alpha))
    y = (body + clear * _GREY).clamp(0.0, 1.0).reshape(-1, 3)
    t = clear.reshape(-1)
    r_r = (y**2).sum() - 2 * _GREY * known.clear @ y.sum(1) + 3 * _GREY**2 * known.clear_clear
    m_r = known.shade @ y - _GREY * known.shade_clear[..., None]
    t_t = (t**2).sum() - 2 * known.clear @ t + known.clear_clear
    palette = torch.tensor(list(world.palette.values()), dtype=torch.float64)
    return ((r_r + t_t)[:, None, None] + colouring_costs(palette, known.shade_shade, m_r)) / (4 * len(t))


def colouring_costs(
    palette: Float[Tensor, "C 3"], m_m: Float[Tensor, "*B 2 2"], m_r: Float[Tensor, "*B 2 3"]
) -> Float[Tensor, "*B C C"]:
    """All of E that depends on the colours, of each pair of colours that the two parts may have.

    Of a layout of one part the second row and column of ``m_m`` and row of ``m_r`` are zero.
    """
    gram = palette @ palette.T
    single = m_m.diagonal(dim1=-2, dim2=-1)[..., None] * gram.diagonal() - 2.0 * m_r @ palette.T
    return single[..., 0, :, None] + single[..., 1, None, :] + 2.0 * m_m[..., 0, 1, None, None] * gram


@functools.cache
def _bare(world: World) -> Float[Tensor, "L C C"]:
    """The distances of pictures that show nothing at all."""
    blank = torch.zeros(VIEWS, SIZE, SIZE, 4)
    return distances(Pictures(blank[..., :3], blank[..., 3:]), world)


@functools.cache
def _catalogue(world: World) -> Catalogue:
    """Looked up once per process."""
    cameras = held_out(SIZE // _SHRINK).pick(slice(None, None, _EVERY))
    layouts = world.layouts()
    pixels = len(cameras) * cameras.width * cameras.height
    shade = torch.zeros(len(layouts), 2, pixels, dtype=torch.float64)
    clear = torch.zeros(len(layouts), pixels, dtype=torch.float64)
    for row, seen in enumerate(world.buffers(layouts, cameras, _SUPERSAMPLE)):
        parts = seen.shade.shape[1]
        shade[row, :parts] = seen.shade.transpose(0, 1).reshape(parts, -1).double()
        clear[row] = 1.0 - seen.coverage.sum(1).reshape(-1).double()
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
