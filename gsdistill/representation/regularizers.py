"""Penalties added to the distillation loss; each weight is a schedule over the stage, and 0 leaves the term out.

of the pictures (a mean over pixels and views; a is the rendered opacity, "alpha"):
opacity        mean of a: Gaussians that no gradient supports fade (no floaters, no halo)
entropy        mean of a (1 - a): pixels are either solid or empty
sparsity       mean of sqrt(a^2 + 0.01) (threestudio's lambda_sparsity)
depth_sparsity the same of the depth over its largest value, in place of a (GaussianDreamer's lambda_sparsity, whose
               program calls this opacity)
opaque         mean of -a log a - (1 - a) log(1 - a), with a in 0.001..0.999 (threestudio's lambda_opaque)
tv             total variation of the colours (LucidDreamer's lambda_tv, threestudio-3dgs' lambda_tv_loss): twice the
               sum over both directions of the mean squared difference of neighbouring pixels
depth_tv       that of the depth, summed with the blending weights (threestudio-3dgs with MVDream, lambda_depth_tv_loss)
disparity_tv   that of the depth picture, 1 at the nearest (LucidDreamer's lambda_tv, which counts both with one weight)
z_variance     mean over the pixels with a > 0.5 of the variance of depth among what a pixel sees, by blending weights
               (HiFA, arXiv 2305.18766; threestudio's lambda_z_variance, along the ray where this is camera z)
convex         how far the surface bends inwards around the vertical (lambda_convex of SDI's program): minus the mean of
               the vertical component of the cross products of neighbours in the normal picture, reduced to 8 x 8
of the Gaussians (s are the three standard deviations, world units; o the opacity, 0..1):
scale          mean of the squared largest s
mean_scale     mean of all s (LucidDreamer's lambda_scale)
total_scale    sum of all s (threestudio-3dgs' lambda_scales)
bulk           sum of o |s|, by which only o is changed (threestudio-3dgs' lambda_opacity)
position       mean distance of the means from the origin (threestudio-3dgs' lambda_position)
outlying       mean of o times that distance, by which only o is changed (GSGEN's penalty.alpha, center_weighted)

GSGEN's program has six others (of distances, movements, overlaps and volumes), which none of its configs uses, and
threestudio-3dgs with shading one of normals: these are left out, as is DreamFusion's orientation loss, which is of the
gradient of a density field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import SH_C0, Cameras, Gaussians, Render
from gsdistill.renderer.base import render
from gsdistill.renderer.maps import SOLID, disparities, normal_pictures
from gsdistill.settings.ramp import Ramp

__all__ = ["RegularizerSettings", "penalty"]

COARSE = 8  # pixels of the normal picture that ``convex`` looks at, as in SDI's program


@dataclass(frozen=True)
class RegularizerSettings:
    """Weights of the penalties, relative to the distillation loss (half a squared gradient norm per view).

    threestudio, threestudio-3dgs, GaussianDreamer and GSGEN have this loss too, times a weight of their own (lambda_sds
    or loss.sds: 1, or 0.1 in threestudio-3dgs and GSGEN): a released weight is divided by that one here. LucidDreamer
    has the sum over its 4 views, times guidance.lambda_guidance = 0.1: its weights of 1 are 1 / (4 x 0.1) = 2.5 here,
    or 1 with method.lambda_guidance 0.4.
    """

    opacity: Ramp = bounded(Ramp(0.0, 0.0), low=0)  # weight of the mean alpha
    entropy: Ramp = bounded(Ramp(0.0, 0.0), low=0)  # weight of the mean alpha (1 - alpha)
    scale: Ramp = bounded(Ramp(0.0, 0.0), low=0)  # weight of the mean squared largest deviation
    sparsity: Ramp = bounded(Ramp(0.0, 0.0), low=0)  # weight of the mean sqrt(alpha^2 + 0.01)
    # weight of the mean sqrt(d^2 + 0.01), where d is the depth over its largest value
    depth_sparsity: Ramp = bounded(Ramp(0.0, 0.0), low=0)
    opaque: Ramp = bounded(Ramp(0.0, 0.0), low=0)  # weight of the mean entropy of alpha, in nats
    tv: Ramp = bounded(Ramp(0.0, 0.0), low=0)  # weight of the total variation of the colours
    depth_tv: Ramp = bounded(Ramp(0.0, 0.0), low=0)  # weight of the total variation of the depth
    disparity_tv: Ramp = bounded(Ramp(0.0, 0.0), low=0)  # weight of the total variation of the depth picture
    # weight of the variance of depth in the solid pixels; each view is rendered once more for it
    z_variance: Ramp = bounded(Ramp(0.0, 0.0), low=0)
    convex: Ramp = bounded(Ramp(0.0, 0.0), low=0)  # weight of how far the surface bends inwards
    mean_scale: Ramp = bounded(Ramp(0.0, 0.0), low=0)  # weight of the mean deviation
    total_scale: Ramp = bounded(Ramp(0.0, 0.0), low=0)  # weight of the sum of all deviations
    bulk: Ramp = bounded(Ramp(0.0, 0.0), low=0)  # weight of the sum of opacity times size
    position: Ramp = bounded(Ramp(0.0, 0.0), low=0)  # weight of the mean distance from the origin
    outlying: Ramp = bounded(Ramp(0.0, 0.0), low=0)  # weight of the mean opacity times distance from the origin


def penalty(
    settings: RegularizerSettings, progress: float, gaussians: Gaussians, out: Render, cameras: Cameras
) -> Float[Tensor, ""]:
    """Return the weighted sum of the penalties at ``progress`` (0..1) of the stage; a constant zero if all are off.

    ``out`` is what ``cameras`` see of the Gaussians.
    """
    total = out.alphas.new_zeros(())
    for name, term in _TERMS.items():
        if weight := getattr(settings, name)(progress):
            total = total + weight * term(gaussians, out, cameras)
    return total


def _sparsity(values: Float[Tensor, "B H W 1"]) -> Float[Tensor, ""]:
    return (values.square() + 0.01).sqrt().mean()


def _opaque(alphas: Float[Tensor, "B H W 1"]) -> Float[Tensor, ""]:
    inside = alphas.clamp(1e-3, 1.0 - 1e-3)
    return -(inside * inside.log() + (1.0 - inside) * (1.0 - inside).log()).mean()


def _variation(pictures: Float[Tensor, "B H W C"]) -> Float[Tensor, ""]:
    return 2.0 * (pictures.diff(dim=1).square().mean() + pictures.diff(dim=2).square().mean())


def _z_variance(gaussians: Gaussians, out: Render, cameras: Cameras) -> Float[Tensor, ""]:
    """E[z^2] - E[z]^2, with the z^2 from a render of each view in which they are the colours."""
    squares = torch.cat([_squared_depths(gaussians, cameras.pick(slice(b, b + 1))) for b in range(len(cameras))])
    solid, weight = out.alphas > SOLID, out.alphas.clamp_min(SOLID)
    variance = squares / weight - (out.depths / weight).square()
    return torch.where(solid, variance, 0.0).sum() / solid.sum().clamp_min(1)


def _squared_depths(gaussians: Gaussians, camera: Cameras) -> Float[Tensor, "1 H W 1"]:
    """The squares of camera z summed with the blending weights, for one camera, because z is another for each.

    A colour is 0.5 + SH_C0 sh, and at least 0, as squares are.
    """
    z = gaussians.means @ camera.viewmats[0, 2, :3] + camera.viewmats[0, 2, 3]
    sh = ((z.square() - 0.5) / SH_C0)[:, None, None].expand(-1, 1, 3)
    return render(replace(gaussians, sh=sh), camera, z.new_zeros(1, 3)).images[..., :1]


def _convex(out: Render, cameras: Cameras) -> Float[Tensor, ""]:
    pictures = normal_pictures(out, cameras).permute(0, 3, 1, 2)
    coarse = interpolate(pictures, (COARSE, COARSE), mode="bilinear", align_corners=False)
    rightwards = torch.linalg.cross(coarse[..., :-1], coarse[..., 1:], dim=1)
    upwards = torch.linalg.cross(coarse[..., 1:, :], coarse[..., :-1, :], dim=1)
    return -(rightwards[:, 2].mean() + upwards[:, 2].mean())


def _opacities(gaussians: Gaussians, weights: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Opacities times detached ``weights``."""
    return gaussians.opacities.sigmoid() * weights.detach()


_TERMS: Mapping[str, Callable[[Gaussians, Render, Cameras], Float[Tensor, ""]]] = {
    "opacity": lambda gaussians, out, cameras: out.alphas.mean(),
    "entropy": lambda gaussians, out, cameras: (out.alphas * (1.0 - out.alphas)).mean(),
    "scale": lambda gaussians, out, cameras: torch.exp(2.0 * gaussians.scales.amax(dim=-1)).mean(),
    "sparsity": lambda gaussians, out, cameras: _sparsity(out.alphas),
    "depth_sparsity": lambda gaussians, out, cameras: _sparsity(out.depths / (out.depths.max() + 1e-5)),
    "opaque": lambda gaussians, out, cameras: _opaque(out.alphas),
    "tv": lambda gaussians, out, cameras: _variation(out.images),
    "depth_tv": lambda gaussians, out, cameras: _variation(out.depths),
    "disparity_tv": lambda gaussians, out, cameras: _variation(disparities(out)),
    "z_variance": _z_variance,
    "convex": lambda gaussians, out, cameras: _convex(out, cameras),
    "mean_scale": lambda gaussians, out, cameras: gaussians.scales.exp().mean(),
    "total_scale": lambda gaussians, out, cameras: gaussians.scales.exp().sum(),
    "bulk": lambda gaussians, out, cameras: _opacities(gaussians, gaussians.scales.exp().norm(dim=-1)).sum(),
    "position": lambda gaussians, out, cameras: gaussians.means.norm(dim=-1).mean(),
    "outlying": lambda gaussians, out, cameras: _opacities(gaussians, gaussians.means.norm(dim=-1)).mean(),
}
