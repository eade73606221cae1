"""White noise on the surface of the object: near views of a place see the same noise (CFD, arXiv 2501.05445).

Space around the origin has six charts, each with four textures of white noise, one for each shell of radius. With the
axes (a, b, c) of a chart a point of radius r falls, by a map of equal area from the half sphere to the square, on
    d = sqrt(1 - |c| / r),   phi = atan2(a, b),   u in (-1, 1] along the quarter of phi,
    (d, d u) for phi in (0, 90], (-d u, d) in (90, 180], (-d, -d u) in (-180, -90], (d u, -d) in (-90, 0] degrees.
Both half spheres share the square. Three charts have the nearest r in front, the other three the farthest.

The corners of a latent's pixel are mean surface points. Its two triangles are drawn into the textures of their shell
(a triangle whose corners lie in two shells, or with a corner of opacity 0.1 or less, is left out), and hide each other
there. The noise of the pixel is the sum of the texels that it covers over the square root of their number. A texel is
white, and has one owner in a view, so pixels have variance 1 and are independent. The inside of a triangle is open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gsdistill.core.device import widest_float
from gsdistill.core.structs import Cameras
from gsdistill.distillation.base import Surface
from gsdistill.renderer.maps import surface_points

__all__ = ["CHARTS", "SHELLS", "ball", "corners", "draw", "mean_points", "sample"]

AXES = ((0, 1, 2), (2, 0, 1), (1, 2, 0))  # of charts 0 and 1, 2 and 3, 4 and 5; the even ones have the nearest in front
CHARTS, SHELLS = 6, 4
COVERED = 0.1  # opacity above which something is seen
AT_ONCE = 1 << 22  # texels that are listed together, which bounds memory
FARTHEST = 1.0  # radius at which noise ends
LAST = torch.iinfo(torch.int64).max
FLIP = LAST - (1 << 32) + 1  # turns the order of radii in a key


# ------------------------------------------------------------------------------------------------ what a view shows


def corners(
    depths: Float[Tensor, "B H W 1"], alphas: Float[Tensor, "B H W 1"], cameras: Cameras, size: tuple[int, int]
) -> Surface:
    """The surface at the corners of h x w latents, from renders: summed depth (see Render) and opacity."""
    exact = widest_float(depths.device)
    depth, alpha = depths.detach()[..., 0].to(exact), alphas.detach()[..., 0].to(exact)
    points = surface_points(depth / alpha.clamp_min(torch.finfo(alphas.dtype).tiny), cameras)
    return mean_points(points, alpha, size)


def mean_points(points: Float[Tensor, "B H W 3"], alphas: Float[Tensor, "B H W"], size: tuple[int, int]) -> Surface:
    """Means over the pixels around each corner of h x w latents: of the points that are seen, and of opacity.

    A window has the size of a latent's pixel, rounded up to an even number of pixels. Outside the picture is nothing.
    """
    seen = (alphas > COVERED).to(points)[..., None]
    summed = torch.cat([points * seen, seen, alphas[..., None].to(points)], dim=-1).cumsum(1).cumsum(2)
    summed = torch.nn.functional.pad(summed, (0, 0, 1, 0, 1, 0))
    (bottom, top, high), (right, left, wide) = (
        _window(total, count, points.device) for total, count in zip(points.shape[1:3], size, strict=True)
    )
    rows = summed[:, top] - summed[:, bottom]
    window = rows[:, :, left] - rows[:, :, right]
    count = window[..., 3:4].round()  # differences of sums are not quite whole
    return Surface(window[..., :3] / count.clamp_min(1) * (count > 0), window[..., 4] / (high * wide))


def _window(total: int, count: int, device: torch.device) -> tuple[Int[Tensor, "K"], Int[Tensor, "K"], int]:
    """Where the windows of ``count`` + 1 corners begin and end on ``total`` pixels, and how long they are."""
    half = (-(-total // count) + 1) // 2
    middle = torch.arange(count + 1, device=device) * total // count
    return (middle - half).clamp_min(0), (middle + half).clamp_max(total), 2 * half


def ball(cameras: Cameras, size: tuple[int, int]) -> Surface:
    """For latents without a scene: an opaque ball of radius 0.9 that fills the picture with 90 x 90 degrees of it."""
    exact = widest_float(cameras.azimuths.device)
    down, right = (torch.linspace(-45, 45, n + 1, device=cameras.azimuths.device, dtype=exact) for n in size)
    a = torch.deg2rad(cameras.azimuths.to(exact)[:, None, None] + right)
    e = torch.deg2rad(cameras.elevations.to(exact)[:, None, None] - down[:, None])
    a, e = torch.broadcast_tensors(a, e)
    directions = torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()], dim=-1)
    return Surface(0.9 * directions, torch.ones_like(a))


# ------------------------------------------------------------------------------------------------------- its noise


def draw(
    shape: tuple[int, int, int], texels: int, generator: torch.Generator, dtype: torch.dtype
) -> Float[Tensor, "6 4 R R C"]:
    """Standard normal textures for latents of ``shape`` (C, h, w): R = ``texels`` times the longer of h and w."""
    side, device = texels * max(shape[1:]), generator.device
    textures = torch.empty(CHARTS, SHELLS, side, side, shape[0], device=device, dtype=dtype)
    for texture in textures.flatten(0, 1):  # one after the other, because normal numbers are drawn in float32
        texture.copy_(torch.randn(texture.shape, generator=generator, device=device))
    return textures


def sample(
    textures: Float[Tensor, "6 4 R R C"], surface: Surface
) -> tuple[Float[Tensor, "B C h w"], Int[Tensor, "B 1 h w"]]:
    """The noise of every pixel, 0 where it covers no texel, and the number of texels that it covers."""
    height, width = (count - 1 for count in surface.alphas.shape[1:])
    faces = _faces(height, width, textures.device)
    front = torch.full((textures[0, ..., 0].numel(),), LAST, device=textures.device)
    views = [
        _view(textures, points.flatten(0, 1), (alphas > COVERED).flatten(), faces, front)
        for points, alphas in zip(surface.points, surface.alphas, strict=True)
    ]
    total = torch.stack(views).transpose(1, 2).unflatten(2, (height, width))
    count = total[:, -1:].round()
    return total[:, :-1] / count.clamp_min(1).sqrt(), count.long()


def _faces(height: int, width: int, device: torch.device) -> Int[Tensor, "F 3"]:
    """The corners of the two triangles of every pixel; F = 2 h w, and face f belongs to pixel f mod h w."""
    row, column = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    first = (row * (width + 1) + column).flatten()
    right, below = first + 1, first + width + 1
    return torch.cat([torch.stack([first, right, below], 1), torch.stack([right, below, below + 1], 1)])


def _view(
    textures: Float[Tensor, "6 4 R R C"],
    points: Float[Tensor, "V 3"],
    covered: Bool[Tensor, "V"],
    faces: Int[Tensor, "F 3"],
    front: Int[Tensor, "K"],
) -> Float[Tensor, "P n"]:
    """For each pixel of one view the sums of its texels, C numbers, and their number."""
    side = textures.shape[2]
    radius = points.norm(dim=-1)
    shell = (torch.ceil(SHELLS * radius).long() - 1).clamp_max(SHELLS - 1)[faces]  # (k / 4, (k + 1) / 4] is shell k
    whole = covered[faces].all(1) & (shell >= 0).all(1) & (shell == shell[:, :1]).all(1)
    number = torch.nonzero(whole)[:, 0]
    kind = torch.promote_types(textures.dtype, torch.float32)
    total = torch.zeros(len(faces) // 2, textures.shape[-1] + 1, device=points.device, dtype=kind)
    for axis, axes in enumerate(AXES):
        place = (_square(points[:, axes], radius) + 1) * (side / 2) - 0.5  # in texels, whole in their middles
        spans = _spans(place[faces[number]], radius[faces[number]], shell[number, 0], side)
        for rows, sums in _summed(spans, textures[2 * axis : 2 * axis + 2].flatten(1, 3), front):
            total.index_add_(0, number[spans.face[rows]] % len(total), sums)
    return total


def _square(points: Float[Tensor, "V 3"], radius: Float[Tensor, "V"]) -> Float[Tensor, "V 2"]:
    """Where points with the axes of a chart fall on [-1, 1]^2."""
    a, b, c = points.unbind(-1)
    radius = radius.clamp_min(torch.finfo(radius.dtype).tiny)
    d = ((a.square() + b.square()) / (radius * (radius + c.abs()))).sqrt().clamp_max(1.0)
    quarters = torch.atan2(a, b) * (2 / torch.pi)
    wedge = torch.ceil(quarters).clamp(-1, 2)
    along = d * (2 * (quarters - wedge) + 1)
    places = ((-d, -along), (along, -d), (d, along), (-along, d))  # for wedge -1, 0, 1, 2
    options = torch.stack([torch.stack(place, -1) for place in places])
    return options[wedge.long() + 1, torch.arange(len(d), device=d.device)]


@dataclass(frozen=True)
class _Spans:
    """Texels of one row that a face covers: its number, the first texel in the shells' textures, and how many."""

    face: Int[Tensor, "S"]
    first: Int[Tensor, "S"]
    count: Int[Tensor, "S"]
    radius: Float[Tensor, "S"]  # at the first
    slope: Float[Tensor, "S"]  # of the radius, a texel on


def _spans(place: Float[Tensor, "F 3 2"], radius: Float[Tensor, "F 3"], shell: Int[Tensor, "F"], side: int) -> _Spans:
    """The spans of all faces. Both faces of an edge compute the same ends, so that no texel between them is lost."""
    by_x = place[..., 0].argsort(dim=1, stable=True)
    order = by_x.gather(1, place[..., 1].gather(1, by_x).argsort(dim=1, stable=True))
    x, y, r = (values.gather(1, order) for values in (place[..., 0], place[..., 1], radius))
    (xa, xb, xc), (ya, yb, yc), (ra, rb, rc) = x.unbind(1), y.unbind(1), r.unbind(1)
    top, bottom = (torch.floor(ya).long() + 1).clamp_min(0), (torch.ceil(yc).long() - 1).clamp_max(side - 1)
    rows = (bottom - top + 1).clamp_min(0)
    face = torch.repeat_interleave(rows)
    row = torch.arange(len(face), device=face.device) - (rows.cumsum(0) - rows - top)[face]
    long, above, below = (xc - xa) / (yc - ya), (xb - xa) / (yb - ya), (xc - xb) / (yc - yb)
    one = xa[face] + (row - ya[face]) * long[face]
    other = torch.where(
        row <= yb[face], xa[face] + (row - ya[face]) * above[face], xb[face] + (row - yb[face]) * below[face]
    )
    left = (torch.floor(torch.minimum(one, other)).long() + 1).clamp_min(0)
    right = (torch.ceil(torch.maximum(one, other)).long() - 1).clamp_max(side - 1)
    area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
    slope = (((rb - ra) * (yc - ya) - (rc - ra) * (yb - ya)) / area)[face]
    down = (((xb - xa) * (rc - ra) - (xc - xa) * (rb - ra)) / area)[face]
    start = ra[face] + slope * (left - xa[face]) + down * (row - ya[face])
    reach = (FARTHEST - start) / slope  # texels until the radius is too large, or from which on it is not
    far = start > FARTHEST
    right = torch.where(~far & (slope > 0), torch.minimum(right, left + torch.floor(reach)), right)
    skipped = torch.where(far & (slope < 0), torch.ceil(reach), 0.0)
    lost = (area == 0)[face] | (far & (slope >= 0))
    count = torch.where(lost, 0, right - left + 1 - skipped)
    kept = torch.nonzero(count > 0)[:, 0]
    first = (shell[face] * side + row) * side + left + skipped
    parts = (face, first.long(), count.long(), (start + slope * skipped).float(), slope.float())
    return _Spans(*(part[kept] for part in parts))


def _summed(
    spans: _Spans, textures: Float[Tensor, "2 K C"], front: Int[Tensor, "K"]
) -> Iterator[tuple[slice, Float[Tensor, "s n"]]]:
    """For spans of both charts of an axis the sums of their texels that no other face hides, and the number of those.

    ``front`` is work space of LAST, and is left so.
    """
    listed, pieces = _lister(spans), _pieces(spans.count)
    kind = torch.promote_types(textures.dtype, torch.float32)
    for texture, flip in zip(textures, (0, FLIP), strict=True):
        for piece in pieces:
            texel, key = listed(piece)
            front.scatter_reduce_(0, texel, key ^ flip, "amin")
        for piece in pieces:
            texel, key = listed(piece)
            seen = (front.index_select(0, texel) == (key ^ flip)).to(kind)
            values = texture.index_select(0, texel).to(seen).mul_(seen[:, None])
            sums, count = (
                torch.segment_reduce(part, "sum", lengths=spans.count[piece], unsafe=True) for part in (values, seen)
            )
            yield piece, torch.cat([sums, count[:, None]], dim=1)
        for piece in pieces:
            front.index_fill_(0, listed(piece)[0], LAST)


def _pieces(count: Int[Tensor, "S"]) -> list[slice]:
    """Runs of spans of about AT_ONCE texels each."""
    if not len(count):
        return []
    step = torch.nonzero(torch.diff(count.cumsum(0) // AT_ONCE))[:, 0] + 1
    edges = [0, *step.tolist(), len(count)]
    return [slice(*pair) for pair in pairwise(edges)]


def _lister(spans: _Spans) -> Callable[[slice], tuple[Int[Tensor, "K"], Int[Tensor, "K"]]]:
    """Lists the texels of some spans, with numbers of which the least is in front: the radius, then the span.

    The last answer is kept, because most views are one piece that is asked several times.
    """
    kept: dict[int, tuple[Tensor, Tensor]] = {}

    def listed(piece: slice) -> tuple[Int[Tensor, "K"], Int[Tensor, "K"]]:
        if piece.start not in kept:
            kept.clear()
            count = spans.count[piece]
            span = torch.repeat_interleave(count)
            step = torch.arange(len(span), device=span.device) - (count.cumsum(0) - count).index_select(0, span)
            start, slope, first = (
                part[piece].index_select(0, span) for part in (spans.radius, spans.slope, spans.first)
            )
            order = torch.addcmul(start, slope, step.float()).clamp_min_(0.0).view(torch.int32).long()
            # the bits of positive numbers are in the order of the numbers
            kept[piece.start] = first.add_(step), order.bitwise_left_shift_(32).bitwise_or_(span.add_(piece.start))
        return kept[piece.start]

    return listed
