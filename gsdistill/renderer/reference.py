"""The specification of all renderers: every Gaussian at every pixel, in plain torch with autograd, any floating type.

Letters: N Gaussians, M those visible in one view, in depth order, P pixels of a chunk. A Gaussian with mean m, rotation
R (from a wxyz quaternion) and scales s has the world covariance (R S)(R S)^T. A camera with rotation W, translation t
and focal lengths f sees its mean at c = W m + t and, to first order, its covariance as

    C = (J W R S)(J W R S)^T + eps2d I,    J = [[fx/z, 0, -fx u/z], [0, fy/z, -fy v/z]],

with u = x/z and v = y/z clamped to 1.3 times the field of view (EWA splatting, Zwicker et al. 2001; the clamp is
gsplat's). Time grows with N times the number of pixels, so it is for small scenes and for tests of other backends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gsdistill.core.structs import Cameras, Gaussians, Render
from gsdistill.renderer.base import (
    ALPHA_MAX,
    ALPHA_MIN,
    COVARIANCE_MAX,
    DEVIATION_MAX,
    TRANSMITTANCE_MIN,
)
from gsdistill.renderer.harmonics import sh_basis

__all__ = ["Splats", "project", "rasterize", "rotations"]

PAIRS_PER_CHUNK = 1 << 25  # Gaussian-pixel pairs in memory at a time; with more, backward computes them again


@dataclass(frozen=True)
class Splats:
    """The M visible Gaussians of one view on its screen, nearest first."""

    index: Int[Tensor, " M"]  # which Gaussian each splat is, 0..N-1
    means: Float[Tensor, "M 2"]  # pixels
    conics: Float[Tensor, "M 3"]  # inverse covariance: xx, xy, yy
    opacities: Float[Tensor, " M"]  # 0..1
    colours: Float[Tensor, "M 3"]  # RGB, 0 or more
    depths: Float[Tensor, " M"]  # camera z
    radii: Int[Tensor, " M"]  # pixels, half the longer side of the box around alpha >= 1/255


def rotations(quats: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 3"]:
    """The rotation matrices of wxyz quaternions, whose lengths may be anything but zero."""
    w, x, y, z = (quats / quats.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def project(
    gaussians: Gaussians,
    viewmat: Float[Tensor, "4 4"],
    K: Float[Tensor, "3 3"],
    width: int,
    height: int,
) -> Splats:
    """Project the Gaussians to one camera's screen: the visible ones in depth order.

    ``viewmat`` is world to camera with OpenCV axes, ``K`` are intrinsics in pixels, ``width`` and ``height`` pixels.
    """
    options = gaussians.options
    W, t = viewmat[:3, :3], viewmat[:3, 3]
    depth = gaussians.means.detach() @ W[2] + t[2]
    sound = (gaussians.scales < math.log(DEVIATION_MAX)).all(-1)
    index = (sound & (depth >= options.near) & (depth <= options.far)).nonzero()[:, 0]
    index = index[depth[index].argsort(stable=True)]  # nearest first; culled Gaussians must not reach a division by z
    means = gaussians.means[index]
    x, y, z = (means @ W.T + t).unbind(-1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    u = (x / z).clamp(-cx / fx - margin_x, (width - cx) / fx + margin_x)
    v = (y / z).clamp(-cy / fy - margin_y, (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    J = torch.stack([torch.stack([fx / z, zero, -fx * u / z], -1), torch.stack([zero, fy / z, -fy * v / z], -1)], -2)
    L = J @ W @ (rotations(gaussians.quats[index]) * gaussians.scales[index].exp()[:, None, :])
    a, b, c = (L[:, 0] ** 2).sum(-1), (L[:, 0] * L[:, 1]).sum(-1), (L[:, 1] ** 2).sum(-1)
    area = torch.linalg.cross(L[:, 0], L[:, 1]).norm(dim=-1)  # area^2 = a c - b^2 (Lagrange), but without cancellation
    det = area**2 + options.eps2d * (a + c) + options.eps2d**2
    a, c = a + options.eps2d, c + options.eps2d
    opacities = gaussians.opacities[index].sigmoid()
    if options.antialiased:
        opacities = opacities * area / det.sqrt()
    directions = torch.nn.functional.normalize(means - torch.linalg.inv(viewmat)[:3, 3], dim=-1)
    basis = sh_basis(directions, gaussians.sh_degree)
    colours = (torch.einsum("mk,mkc->mc", basis, gaussians.sh[index]) + 0.5).clamp_min(0)
    screen = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    reach = (2 * (opacities.detach() / ALPHA_MIN).clamp_min(1).log()).sqrt()  # in standard deviations
    rx, ry = (reach * a.sqrt()).ceil(), (reach * c.sqrt()).ceil()
    on_screen = (
        (screen[:, 0] + rx > 0) & (screen[:, 0] - rx < width) & (screen[:, 1] + ry > 0) & (screen[:, 1] - ry < height)
    )
    keep = on_screen & (opacities >= ALPHA_MIN) & (det > 0) & (a + c < COVARIANCE_MAX)
    conics = torch.stack([c, -b, a], -1)[keep] / det[keep, None]
    radii = torch.maximum(rx, ry)[keep].int().clamp_min(1)
    return Splats(index[keep], screen[keep], conics, opacities[keep], colours[keep], z[keep], radii)


def rasterize(gaussians: Gaussians, cameras: Cameras, backgrounds: Float[Tensor, "B 3"]) -> Render:
    """See :func:`gsdistill.renderer.base.render`. Any device, any floating type."""
    B, N = len(cameras), len(gaussians)
    wanted = torch.is_grad_enabled() and any(value.requires_grad for value in gaussians.tensors().values())
    screen = torch.zeros(B, N, 2, dtype=gaussians.means.dtype, device=gaussians.means.device, requires_grad=wanted)
    radii = torch.zeros(B, N, dtype=torch.int32, device=gaussians.means.device)
    views = []
    for b in range(B):
        splats = project(gaussians, cameras.viewmats[b], cameras.Ks[b], cameras.width, cameras.height)
        radii[b, splats.index] = splats.radii
        means = splats.means + screen[b, splats.index]
        views.append(_view(splats, means, cameras.width, cameras.height))
    pixels = torch.stack(views).reshape(B, cameras.height, cameras.width, 5)
    alphas, depths = pixels[..., 3:4], pixels[..., 4:5]
    images = pixels[..., :3] + (1 - alphas) * backgrounds[:, None, None, :]
    return Render(images, alphas, depths, screen, radii)


def _view(splats: Splats, means: Float[Tensor, "M 2"], width: int, height: int) -> Float[Tensor, "HW 5"]:
    """The red, green, blue, alpha and depth of every pixel of one view over black, row after row."""
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centres = torch.stack([xs, ys], -1).reshape(-1, 2).to(means) + 0.5
    chunks = centres.split(max(1, PAIRS_PER_CHUNK // max(1, len(means))))
    composite = _composite if len(chunks) == 1 else partial(checkpoint, _composite, use_reentrant=False)
    features = torch.cat([splats.colours, torch.ones_like(splats.depths)[:, None], splats.depths[:, None]], -1)
    return torch.cat([composite(chunk, means, splats.conics, splats.opacities, features) for chunk in chunks])


def _composite(
    centres: Float[Tensor, "P 2"],
    means: Float[Tensor, "M 2"],
    conics: Float[Tensor, "M 3"],
    opacities: Float[Tensor, " M"],
    features: Float[Tensor, "M 5"],
) -> Float[Tensor, "P 5"]:
    """Blend ``features`` front to back at the pixel ``centres``."""
    dx, dy = (centres[None] - means[:, None]).unbind(-1)  # [M, P]
    A, B, C = conics[:, :, None].unbind(1)
    sigma = 0.5 * (A * dx * dx + C * dy * dy) + B * dx * dy
    alphas = (opacities[:, None] * torch.exp(-sigma)).clamp_max(ALPHA_MAX)
    alphas = torch.where((sigma >= 0) & (alphas >= ALPHA_MIN), alphas, 0.0)
    behind = torch.cumprod(1 - alphas, 0)
    before = torch.cat([torch.ones_like(behind[:1]), behind[:-1]])
    weights = torch.where(behind > TRANSMITTANCE_MIN, alphas * before, 0.0)
    return weights.T @ features
