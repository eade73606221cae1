"""What a splat looks like: the nearest of all objects of its world that it is compared with, the rivals of its prompt.

In the shapes world they are all 14 solids and 35 stacks in all colourings. Pictures y (over the grey g, from every
second held-out camera, 32 x 32 pixels; of more than 50 layouts every fourth) and transparencies t = 1 - alpha are
compared with those of every object, whose parts have shades m_p and colours c_p, which has F in colours of its own, and
whose transparency is T:

    E(c) = |y - g T - F - sum_p c_p m_p|^2 + |t - T|^2,

summed over pixels and channels. E is quadratic in the colours, so with r = y - g T - F it is
|r|^2 - 2 sum_p c_p . <m_p, r> + sum_pq c_p . c_q <m_p, m_q> + |t - T|^2: all 121 colourings of a layout cost a few
inner products, and those of the truth with itself are computed once. The transparency makes the shape count where a
shaded colour happens to be close to the grey.

The nearest object gives its name only if it explains the pictures. The unexplained part is the object's E over the E
that empty pictures have: 0 for the object itself, 1 for empty pictures. On the shapes prior it was 0.01 to 0.07 at the
end of 14 runs (SDS, SSD, CDS), and 0.07 to 0.16 after a tenth of the steps of seven of them. It was 0.31 for the grey
ball that runs start from, which is nearest to "a pink torus on a pink cube"; 0.18 to 0.58 for halves of the results;
0.27 to 0.57 with their centres moved by 0.3; and 0.36 to 0.75 with opacities too faint to hide what is behind. On the
objects prior it was 0.05 to 0.10 at the end of four runs of SDS, and 0.26 to 0.67 for halves of them. Above 0.2 the
splat has no name. Nor has it one if a part shows none of the world's colours (views.seen_colours), for a
mottled torus is no "pink torus".
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.evaluation.views import SIZE, VIEWS, Pictures, held_out, seen_colours
from gsdistill.worlds.base import Layout, Thing, World

__all__ = ["colouring_costs", "distances", "nearest", "unexplained"]

_SHRINK, _EVERY, _SUPERSAMPLE = 4, 2, 2
_PAGE = 50  # layouts of one catalogue: 15 MB, of which 16 are kept
_GREY = 0.5
UNKNOWN = 0.2  # the unexplained part above which a splat has no name


@dataclass(frozen=True)
class Catalogue:
    """L layouts from the same cameras, X pixels in all, and their inner products. A missing second part is zero."""

    shade: Float[Tensor, "L 2 X"]
    clear: Float[Tensor, "L X"]  # T
    fixed: Float[Tensor, "L X 3"] | None  # F; None where no layout has any
    shade_shade: Float[Tensor, "L 2 2"]
    shade_clear: Float[Tensor, "L 2"]
    clear_clear: Float[Tensor, "L"]


def nearest(ours: Pictures, world: World, things: tuple[Thing, ...]) -> tuple[Thing, ...] | None:
    """The object of ``world`` that is nearest to the pictures from the held-out cameras; None if it has no name.

    It is sought among the rivals of ``things``, which the pictures were to show.
    """
    errors = distances(ours, world, things)
    place = [int(i) for i in torch.unravel_index(errors.argmin(), errors.shape)]
    layout = world.rivals(things)[place[0]]
    if unexplained(errors, world, things) > UNKNOWN or None in seen_colours(_shrunk(ours), world, layout):
        return None
    return world.things(layout, [names[i] for names, i in zip(world.tried(things), place[1:], strict=True)])


def unexplained(errors: Float[Tensor, "L C D"], world: World, things: tuple[Thing, ...]) -> float:
    """The nearest object's E over that of empty pictures, see the module; ``errors`` are those of :func:`distances`."""
    place = torch.unravel_index(errors.argmin(), errors.shape)
    return float(errors[place] / _bare(world, things)[place])


def distances(ours: Pictures, world: World, things: tuple[Thing, ...]) -> Float[Tensor, "L C D"]:
    """Mean square difference, over pixels and the four channels, to each rival of ``things`` in each colouring.

    The axes are the layout, the colour of the first part and that of the second, which a single part ignores.
    """
    small, layouts = _shrunk(ours), tuple(world.rivals(things))
    pages = [layouts[first : first + _PAGE] for first in range(0, len(layouts), _PAGE)]
    every = _EVERY if len(pages) == 1 else 2 * _EVERY  # of many layouts fewer views
    body, clear = (plane[::every].double() for plane in (small.body, 1.0 - small.alpha))
    y, t = (body + clear * _GREY).clamp(0.0, 1.0).reshape(-1, 3), clear.reshape(-1)
    palettes = [torch.tensor([world.palette.get(name, (0.0,) * 3) for name in names]) for names in world.tried(things)]
    return torch.cat([_page_distances(y, t, _catalogue(world, page, every), palettes) for page in pages])


def _page_distances(
    y: Float[Tensor, "X 3"], t: Float[Tensor, "X"], page: Catalogue, palettes: Sequence[Tensor]
) -> Float[Tensor, "L C D"]:
    """The distances to some layouts."""
    r_r = (y**2).sum() - 2 * _GREY * page.clear @ y.sum(1) + 3 * _GREY**2 * page.clear_clear
    m_r = page.shade @ y - _GREY * page.shade_clear[..., None]
    if page.fixed is not None:
        fixed, tone = page.fixed.double(), page.clear * _GREY
        r_r = r_r - 2 * torch.einsum("lxc,xc->l", fixed, y) + 2 * torch.einsum("lxc,lx->l", fixed, tone)
        r_r, m_r = r_r + fixed.flatten(1).square().sum(1), m_r - page.shade @ fixed
    t_t = (t**2).sum() - 2 * page.clear @ t + page.clear_clear
    return ((r_r + t_t)[:, None, None] + colouring_costs(palettes, page.shade_shade, m_r)) / (4 * len(t))


def colouring_costs(
    palettes: Sequence[Float[Tensor, "C 3"]], m_m: Float[Tensor, "*B 2 2"], m_r: Float[Tensor, "*B 2 3"]
) -> Float[Tensor, "*B C D"]:
    """The terms of E that depend on the colours, for each pair of a colour of the first part and one of the second.

    ``palettes`` has the colours of each part. For a layout of one part the second row and column of ``m_m`` and the
    second row of ``m_r`` are zero.
    """
    first, second = (
        m_m[..., p, p, None] * (colors.double() ** 2).sum(1) - 2.0 * m_r[..., p, :] @ colors.double().T
        for p, colors in enumerate(palettes)
    )
    both = palettes[0].double() @ palettes[1].double().T
    return first[..., :, None] + second[..., None, :] + 2.0 * m_m[..., 0, 1, None, None] * both


@functools.lru_cache(maxsize=64)
def _bare(world: World, things: tuple[Thing, ...]) -> Float[Tensor, "L C D"]:
    """The distances of empty pictures."""
    blank = torch.zeros(VIEWS, SIZE, SIZE, 4)
    return distances(Pictures(blank[..., :3], blank[..., 3:]), world, things)


@functools.lru_cache(maxsize=16)
def _catalogue(world: World, layouts: tuple[Layout, ...], every: int) -> Catalogue:
    """Some layouts of a world from some of the held-out cameras, drawn or read from disk."""
    cameras = held_out(SIZE // _SHRINK).pick(slice(None, None, every))
    pixels = len(cameras) * cameras.width * cameras.height
    shade = torch.zeros(len(layouts), 2, pixels, dtype=torch.float64)
    clear = torch.zeros(len(layouts), pixels, dtype=torch.float64)
    fixed = torch.zeros(len(layouts), pixels, 3)
    drawn = world.buffers(layouts, cameras, _SUPERSAMPLE)
    for row, buffers in enumerate(drawn):
        parts = buffers.shade.shape[1]
        shade[row, :parts] = buffers.shade.transpose(0, 1).reshape(parts, -1).double()
        clear[row] = 1.0 - buffers.coverage.sum(1).reshape(-1).double()
        if buffers.fixed is not None:
            fixed[row] = buffers.fixed.movedim(1, -1).reshape(-1, 3)
    return Catalogue(
        shade=shade,
        clear=clear,
        fixed=fixed if any(buffers.fixed is not None for buffers in drawn) else None,
        shade_shade=shade @ shade.transpose(1, 2),
        shade_clear=(shade @ clear[..., None])[..., 0],
        clear_clear=(clear**2).sum(1),
    )


def _shrunk(pictures: Pictures) -> Pictures:
    """The pictures at the smaller size, each pixel the mean of those it replaces."""
    planes = torch.cat([pictures.body, pictures.alpha], dim=-1).permute(0, 3, 1, 2)
    small = torch.nn.functional.avg_pool2d(planes, _SHRINK).permute(0, 2, 3, 1)
    return Pictures(small[..., :3], small[..., 3:])
