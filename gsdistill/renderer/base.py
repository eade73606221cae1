"""The one entry to all renderers: Gaussians and cameras in, images, alphas, depths and screen gradients out.

Every module of this folder except this one (and those with a leading underscore) is a backend of that name with one
function ``rasterize(gaussians, cameras, backgrounds, options) -> Render``. All backends mean the same thing, which
``reference`` spells out: EWA splatting (Zwicker et al. 2001) with the conventions of 3D Gaussian Splatting (Kerbl et
al. 2023) as gsplat implements them. A pixel at (x, y) sees, front to back by camera z,

    alpha_i = min(0.999, o_i exp(-d^T C_i^-1 d / 2)),    T_i = prod_{j<i} (1 - alpha_j),
    image = sum_i T_i alpha_i colour_i + T_end background,

where pairs with alpha < 1/255 are left out and the sum ends before the Gaussian that would bring T to 1e-4 or below.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from gsdistill.config import bounded
from gsdistill.errors import ConfigError, did_you_mean
from gsdistill.structs import SH_C0, Cameras, Gaussians, Render

__all__ = [
    "ALPHA_MAX", "ALPHA_MIN", "COVARIANCE_MAX", "DEVIATION_MAX", "TRANSMITTANCE_MIN", "RenderOptions", "backends",
    "blending_weights", "render",
]  # fmt: skip

ALPHA_MIN = 1.0 / 255.0  # fainter pairs of Gaussian and pixel are ignored
ALPHA_MAX = 0.999  # no Gaussian is more opaque than this at any pixel
COVARIANCE_MAX = 1e17  # square pixels; a Gaussian wider on the screen has diverged and is culled
DEVIATION_MAX = 1e5  # world units; a Gaussian with a larger standard deviation has diverged and is culled
TRANSMITTANCE_MIN = 1e-4  # a pixel ends before the Gaussian that would bring it here


@dataclass(frozen=True)
class RenderOptions:
    """How Gaussians become pixels."""

    # Gaussians nearer to the camera than this are culled (world units along the optical axis).
    near: float = bounded(0.1, above=0.0)
    # Gaussians farther than this are culled.
    far: float = bounded(100.0, above=0.0)
    # Square pixels added to the diagonal of the screen covariance, a low-pass filter.
    eps2d: float = bounded(0.3, low=0.0)
    # Dim every Gaussian by the area that the low-pass filter adds, so that distant ones do not grow (Mip-Splatting).
    antialiased: bool = False


@functools.cache
def backends() -> tuple[str, ...]:
    """Names of the renderers in this folder, sorted."""
    names = (path.stem for path in Path(__file__).parent.glob("*.py"))
    return tuple(sorted(name for name in names if name != "base" and not name.startswith("_")))


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    backgrounds: Float[Tensor, "B 3"],
    options: RenderOptions = RenderOptions(),
    backend: str = "auto",
) -> Render:
    """Render all ``cameras`` in one call, differentiably in every tensor of ``gaussians``.

    ``backgrounds`` holds one RGB colour per camera, 0..1. ``backend`` is "auto" (the one for the device that holds the
    Gaussians) or one of :func:`backends`. ``Render.screen.grad`` holds the gradient of the projected means, in pixels,
    after backward. No gradient reaches the cameras.

    Raises:
        ConfigError: the backend is unknown or cannot run here.
    """
    name = gaussians.means.device.type if backend == "auto" else backend
    if name not in backends():
        allowed = ("auto", *backends())
        raise ConfigError(
            f"backend = '{name}' is not a renderer.{did_you_mean(name, allowed)} Allowed: {', '.join(allowed)}"
        )
    module = importlib.import_module(f"gsdistill.renderer.{name}")
    return module.rasterize(gaussians, cameras, backgrounds, options)


def blending_weights(gaussians: Gaussians, cameras: Cameras) -> Float[Tensor, "N"]:
    """Sum of each Gaussian's weights T_i alpha_i over all pixels of all ``cameras``, in pixels, float64.

    A picture is linear in the colours, sum_i w_i colour_i, so the weights are its derivative by them.
    """
    like = gaussians.means
    plain = torch.zeros(len(gaussians), 1, 3, dtype=like.dtype, device=like.device, requires_grad=True)
    with torch.enable_grad():
        images = render(replace(gaussians, sh=plain), cameras, like.new_zeros(len(cameras), 3)).images
        (gradient,) = torch.autograd.grad(images[..., 0].sum(), plain)
    return gradient[:, 0, 0].double() / SH_C0
